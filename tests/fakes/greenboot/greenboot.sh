#!/bin/sh
# A stand-in for greenboot: health checks decide whether a new system stays. [simulated]
#
# It keeps greenboot's names (units, folders, the boot loader's variables) and its rule: a staged
# system gets so many boots; one that passes its required checks reaches boot-complete.target and
# stays; one that does not is booted again until they are used up, and then the boot loader takes
# the deployment before it. The boot loader of these devices is tests/e2e/bootloader.py.
set -eu

ENV=/boot/grub2/grubenv
ATTEMPTS=3
[ -r /etc/greenboot/greenboot.conf ] && . /etc/greenboot/greenboot.conf
ATTEMPTS=${GREENBOOT_MAX_BOOT_ATTEMPTS:-$ATTEMPTS}

get() { sed -n "s/^$1=//p" "$ENV" 2>/dev/null || true; }

# Written beside and renamed: the power may go at any moment.
put() {
  mkdir -p "${ENV%/*}"
  printf '%s' "$1" >"$ENV.new"
  mv "$ENV.new" "$ENV"
}

run_folder() { # verdict is that of the first script that fails
  for script in "/usr/lib/greenboot/$1"/*.sh "/etc/greenboot/$1"/*.sh; do
    [ -x "$script" ] || continue
    if "$script"; then echo "[simulated] greenboot: $script: SUCCESS"; else
      echo "[simulated] greenboot: $script: FAILURE"
      [ "${2:-required}" = wanted ] || return 1
    fi
  done
}

case "$1" in
set-counter) # at shutdown: only a system that waits to be booted for the first time is counted
  [ -e /run/ostree/staged-deployment ] || exit 0
  put "boot_counter=$ATTEMPTS
boot_success=0
" ;;
check-fallback) # the boot loader used them up and took the older system: make that the default
  [ "$(get boot_counter)" = "-1" ] || exit 0
  echo "[simulated] greenboot: fallback boot detected, the new system is given up"
  bootc rollback
  put "boot_success=1
" ;;
check)
  run_folder check/wanted.d wanted
  run_folder check/required.d ;;
set-success)
  run_folder green.d wanted
  put "boot_success=1
" ;;
red)
  run_folder red.d wanted
  [ -n "$(get boot_counter)" ] || exit 0 # an old system that fell ill is not rebooted for ever
  echo "[simulated] greenboot: unhealthy, $(get boot_counter) boots left"
  systemctl reboot ;;
*)
  echo "unknown verb: $1" >&2
  exit 2 ;;
esac
