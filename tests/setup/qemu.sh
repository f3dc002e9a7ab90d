#!/usr/bin/env bash
# QEMU and a kernel for it, for the one test of `make soak` that boots a machine of its own: 30 MB of
# kernel, and 100 MB of QEMU. Run by hand, as root on Debian; what is there is left alone.
set -euo pipefail

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/kernel"
FLAVOUR=linux-image-cloud-amd64

if ! command -v qemu-system-x86_64 >/dev/null || [[ ! -x /usr/lib/qemu/virtiofsd && ! -x /usr/libexec/virtiofsd ]]; then
  echo "setup: installing QEMU"
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends qemu-system-x86 >/dev/null
fi
[[ -e $CACHE/vmlinuz ]] && exit 0
echo "setup: fetching a kernel for QEMU"
package=$(apt-cache depends "$FLAVOUR" | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -1)
mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/.making.XXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -qq -o APT::Sandbox::User= download "$package" && dpkg -x ./*.deb unpacked)
mv "$work"/unpacked/lib/modules/*/kernel "$CACHE/modules"
mv "$work"/unpacked/boot/vmlinuz-* "$CACHE/vmlinuz"
