#!/bin/sh
# A real kube-apiserver and etcd into the cache, for the tests that compare us with Kubernetes. Built
# from the Go module, by two processes at low priority: four minutes on a quiet machine, once.
set -eu
VERSION=1.34.4
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/kube"
mkdir -p "$CACHE/src"
cd "$CACHE/src"
if [ ! -x "$CACHE/kube-apiserver" ]; then
    command -v go >/dev/null || { echo "building kube-apiserver needs Go 1.24 or newer" >&2; exit 1; }
    printf 'module homeport.test/kube\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n' $VERSION >go.mod
    mod="$(go mod download -json "k8s.io/kubernetes@v$VERSION" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')"
    # Kubernetes' own modules are v0.0.0 in its go.mod, replaced by folders of its tree.
    grep -oE 'k8s.io/[a-z-]+ v0.0.0$' "$mod" | cut -d' ' -f1 | sort -u | while read -r module; do
        echo "replace $module => $module v0.${VERSION#1.}" >>go.mod
    done
    printf '//go:build tools\n\npackage tools\n\nimport _ "k8s.io/kubernetes/cmd/kube-apiserver"\n' >tools.go
    nice -n 10 go mod tidy -e >tidy.log 2>&1 || true
    stamp="-X k8s.io/component-base/version.gitVersion=v$VERSION"
    CGO_ENABLED=0 GOMAXPROCS=2 nice -n 10 go build -p 2 -ldflags "-s -w $stamp" \
        -o "$CACHE/building" k8s.io/kubernetes/cmd/kube-apiserver
    mv "$CACHE/building" "$CACHE/kube-apiserver"
fi
if [ ! -x "$CACHE/etcd" ]; then
    # Unpacked, not installed: a machine should not get a daemon from a test.
    apt-get download -q etcd-server >/dev/null 2>&1
    dpkg -x etcd-server_*.deb unpacked
    mv unpacked/usr/bin/etcd "$CACHE/etcd"
    rm -rf unpacked etcd-server_*.deb
fi
