#!/usr/bin/env bash
# What the tests' stand-in for bootc is held to, asked of a real bootc: for whoever has such a host.
#
#   tests/e2e/on-bootc-host.sh look                     reads only; safe on any bootc host
#   tests/e2e/on-bootc-host.sh stage IMAGE              stages IMAGE (no reboot), then discards it
#   tests/e2e/on-bootc-host.sh travel IMAGE             reboots into IMAGE
#   tests/e2e/on-bootc-host.sh arrived IMAGE            after that reboot: checks what was carried over
#   tests/e2e/on-bootc-host.sh back                     reboots into the system before it
#
# As root. IMAGE is pulled by podman first, since that is how the agent does it. Nothing that was not
# there before is left behind but /etc/homeport-travel and /var/lib/homeport-travel, which `arrived`
# removes. It has never run: no machine of the project's boots by bootc.
set -euo pipefail

fail() { echo "FAIL: $*" >&2; exit 1; }
ok() { echo "ok: $*"; }

# jq is not everywhere; an interpreter that the agent needs is.
field() {
  bootc status --json | python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value.get(name) if isinstance(value, dict) else None
print("" if value is None else value)' "$1"
}

image_of() { field "status.$1.image.image.image"; }

expect() { # what, wanted, found
  [[ $2 == "$3" ]] || fail "$1: wanted '$2', found '$3'"
  ok "$1: $3"
}

switch() {
  podman pull --quiet "$1" >/dev/null
  bootc switch --transport containers-storage --retain "$1"
}

look() {
  [[ -n $(field status.booted.ostree.checksum) ]] || fail "this host was not booted by bootc"
  ok "booted: $(image_of booted) $(field status.booted.image.imageDigest)"
  expect "kind" BootcHost "$(field kind)"
  case $(field apiVersion) in
    org.containers.bootc/v1 | org.containers.bootc/v1alpha1) ok "apiVersion: $(field apiVersion)" ;;
    *) fail "apiVersion: $(field apiVersion)" ;;
  esac
  if touch /usr/homeport-probe 2>/dev/null; then
    rm -f /usr/homeport-probe
    fail "/usr can be written"
  fi
  ok "/usr is read-only"
}

stage() {
  [[ -z $(image_of staged) ]] || fail "something is staged already: $(image_of staged)"
  local booted spare
  booted=$(image_of booted)
  spare=$(image_of rollback)
  [[ $booted != "$1" ]] || fail "$1 is what runs; name another image"
  switch "$1"
  expect "staged" "$1" "$(image_of staged)"
  expect "spec.image is the staged one" "$1" "$(field spec.image.image)"
  expect "booted has not moved" "$booted" "$(image_of booted)"
  local said
  said=$(bootc switch --transport containers-storage --retain "$1")
  [[ $said == *"Image specification is unchanged."* ]] || fail "a second switch said: $said"
  ok "a second switch changes nothing"
  if [[ -z $spare ]]; then
    echo "note: no rollback deployment, so $1 stays staged; it boots next unless you undo it"
    return
  fi
  said=$(bootc rollback)
  [[ $said == *"Next boot: rollback deployment"* ]] || fail "rollback said: $said"
  expect "rollback discards what is staged" "" "$(image_of staged)"
  expect "rollback is queued" True "$(field status.rollbackQueued)"
  bootc rollback >/dev/null
  expect "a second rollback takes it back" False "$(field status.rollbackQueued)"
}

travel() {
  switch "$1"
  image_of booted >/etc/homeport-travel # after staging: the merge of /etc comes at shutdown
  echo kept >/var/lib/homeport-travel
  systemctl reboot
}

arrived() {
  expect "booted" "$1" "$(image_of booted)"
  expect "staged" "" "$(image_of staged)"
  [[ -f /etc/homeport-travel ]] || fail "what was written to /etc after staging is gone"
  expect "rollback is what was booted" "$(cat /etc/homeport-travel)" "$(image_of rollback)"
  expect "/var is shared" kept "$(cat /var/lib/homeport-travel)"
  rm -f /etc/homeport-travel /var/lib/homeport-travel
}

back() {
  [[ -n $(image_of rollback) ]] || fail "there is no rollback deployment"
  bootc rollback
  systemctl reboot
}

((EUID == 0)) || fail "run it as root"
command -v bootc >/dev/null || fail "there is no bootc on this host"
case ${1:-} in
  look | back) "$1" ;;
  stage | travel | arrived) "$1" "${2:?name an image}" ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
