#!/bin/sh
# Builds the Debian package of the agent into the folder OUT, and prints its path. Needs dpkg-deb.
# The same sources make the same bytes.
#
#   build-deb.sh OUT [REVISION]
set -eu
[ $# -ge 1 ] || { echo "usage: build-deb.sh OUT [REVISION]" >&2; exit 2; }
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/../version.py")-${2:-1}
out=$1
mkdir -p "$out"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
umask 022
: "${HOMEPORT_COMMIT:=$(git -C "$here" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}"
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 1767225600)}"
export HOMEPORT_COMMIT SOURCE_DATE_EPOCH

"$here/install.sh" "$tree"
doc=$tree/usr/share/doc/homeport-agent
mkdir -p "$doc"
cp "$here/debian/copyright" "$doc/"
{
    echo "homeport-agent ($version) unstable; urgency=medium"
    echo
    echo "  * What has changed is in the CHANGELOG of the sources."
    echo
    echo " -- Homeport <maintainers@homeport.dev>  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.Debian.gz"

mkdir "$tree/DEBIAN"
size=$(du -sk --apparent-size "$tree" | cut -f1)
sed "s/@VERSION@/$version/; s/@SIZE@/$size/" "$here/debian/control" >"$tree/DEBIAN/control"
for script in postinst prerm postrm; do
    cp "$here/debian/$script" "$tree/DEBIAN/$script"
done
(cd "$tree" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k2) >"$tree/DEBIAN/md5sums"
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/homeport-agent_${version}_all.deb" >/dev/null
echo "$out/homeport-agent_${version}_all.deb"
