#!/bin/sh
# Builds the RPMs of the agent into the folder OUT, and prints their paths. Needs rpmbuild.
#
#   build-rpm.sh OUT [RELEASE]      (HOMEPORT_SELINUX=1: with the policy; needs selinux-policy-devel)
#
# A policy is compiled against the system that it is built on, and is good for such a system only: so
# it is asked for, or built where the system is one with RPMs.
set -eu
[ $# -ge 1 ] || { echo "usage: build-rpm.sh OUT [RELEASE]" >&2; exit 2; }
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
source=$(dirname -- "$(dirname -- "$here")")
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/../version.py")
out=$1
mkdir -p "$out"
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
umask 022
: "${HOMEPORT_COMMIT:=$(git -C "$here" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}"
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 1767225600)}"
export SOURCE_DATE_EPOCH

mkdir -p "$top/SOURCES"
tar --create --gzip --file="$top/SOURCES/homeport-agent-$version.tar.gz" --directory="$source" \
    --exclude=__pycache__ --sort=name --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" \
    --transform="s#^#homeport-agent-$version/#" agent resources LICENSE
set -- --define "_topdir $top" --define "homeport_version $version" \
    --define "homeport_release ${2:-1}" --define "homeport_commit $HOMEPORT_COMMIT" \
    --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1"
devel=/usr/share/selinux/devel/Makefile
if [ "${HOMEPORT_SELINUX:-}" = 1 ] || { [ -e /etc/redhat-release ] && [ -e $devel ]; }; then
    set -- "$@" --define "with_selinux 1"
fi
rpmbuild -bb --quiet "$@" "$here/rpm/homeport-agent.spec" >&2
for package in "$top"/RPMS/noarch/*.rpm; do
    mv "$package" "$out/"
    echo "$out/${package##*/}"
done
