#!/bin/sh
# helm into the cache, for the tests that run Helm applications: helm 3, or with `4` the other one.
# Built from its Go module, by two processes at low priority: a minute on a quiet machine, once.
# Prints where it is.
set -eu
MAJOR="${1:-3}"
case "$MAJOR" in
3) VERSION=3.19.5 ;;
4) VERSION=4.3.1 ;;
*) echo "which helm? 3 or 4" >&2; exit 2 ;;
esac
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/helm"
if [ ! -x "$CACHE/helm-$VERSION" ]; then
    command -v go >/dev/null || { echo "building helm needs Go 1.24 or newer" >&2; exit 1; }
    mkdir -p "$CACHE/bin"
    stamp="-X helm.sh/helm/v$MAJOR/internal/version.version=v$VERSION"
    CGO_ENABLED=0 GOTOOLCHAIN=auto GOBIN="$CACHE/bin" GOMAXPROCS=2 nice -n 15 \
        go install -p 2 -ldflags "-s -w $stamp" "helm.sh/helm/v$MAJOR/cmd/helm@v$VERSION"
    mv "$CACHE/bin/helm" "$CACHE/helm-$VERSION"
    rmdir "$CACHE/bin"
fi
echo "$CACHE/helm-$VERSION"
