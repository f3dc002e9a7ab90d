#!/usr/bin/env bash
# System packages for the demo and the tests, and a kubectl that knows OpenAPI v3.
#
# Run by `make setup`, again and again: what is there is left alone, and then it takes no time.
# Packages need Debian and root; whoever is neither is told what goes missing, and nothing fails,
# since the service itself needs none of this.
set -euo pipefail

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport"
KUBECTL_MINOR_MIN=27

# What for: devices are Debian 13 roots (mmdebstrap) booted by systemd-nspawn (systemd-container);
# their images are made from busybox-static and come from docker-registry; podman and its company
# serve agents that run as plain processes; skopeo and curl look at what the registry holds; the
# Git servers of the tests need an sshd and the service an ssh; the store is tested on PostgreSQL too;
# the agent's RPMs and its SELinux policy are built, and its scripts are read by shellcheck;
# swtpm is the TPM of the tests, with a resource manager, and OpenSSL's and the agent's way to it;
# tinyproxy is the proxy that devices sit behind.
PACKAGES=(
  ca-certificates curl git openssh-client openssh-server iproute2 iptables openssl procps util-linux
  busybox-static docker-registry mmdebstrap skopeo systemd-container
  zsh fish
  rpm shellcheck checkpolicy semodule-utils policycoreutils selinux-policy-dev m4
  tinyproxy-bin
  podman runc crun conmon netavark aardvark-dns catatonit uidmap
  postgresql
  swtpm swtpm-tools tpm2-abrmd libtss2-tcti-tabrmd0 tpm2-tools tpm2-openssl dbus-daemon
  libtss2-dev pkg-config gcc libc6-dev
)

say() { printf 'setup: %s\n' "$*"; }

missing_packages() {
  local installed
  installed=" $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${PACKAGES[@]}" 2>/dev/null \
    | sed -n "s/^installed //p" | tr "\n" " " || true) "
  for package in "${PACKAGES[@]}"; do
    [[ $installed == *" $package "* ]] || echo "$package"
  done
}

install_packages() {
  if ! command -v dpkg-query apt-get >/dev/null; then
    say "this is no Debian; without the packages below devices are processes, not machines:"
    say "  ${PACKAGES[*]}"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((EUID)); then
    say "not root, so these packages stay missing and devices are processes, not machines:"
    say "  ${missing[*]}"
    return
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  # No daemon may be started by this: they are started by the tests, on loopback, and stopped. Nor is
  # a cluster of databases made that nobody asked for.
  if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  fi
  RUNLEVEL=1 UCF_FORCE_CONFFOLD=1 \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

is_new_enough() {
  local minor
  minor=$("$1" version --client -o json 2>/dev/null \
    | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' | head -1)
  [[ -n $minor ]] && ((minor >= KUBECTL_MINOR_MIN))
}

# Debian 13's package, fetched through apt's own signatures in a root of its own, so that the
# machine's package lists stay those of its release.
fetch_kubectl() {
  local work mirror
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder as it is now
  trap "rm -rf '$work'" EXIT
  mirror=$(sed -n 's/^URIs: *\(http[^ ]*\/debian\)\/\{0,1\} *$/\1/p; s/^deb .*\(http[^ ]*\/debian\)\/\{0,1\} .*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1) || true
  mkdir -p "$work"/{state/lists/partial,cache/archives/partial,parts,preferences.d}
  touch "$work/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" \
    >"$work/sources.list"
  local options=(
    -qq -o "Dir::State=$work/state" -o "Dir::State::status=$work/status"
    -o "Dir::Cache=$work/cache" -o "Dir::Etc::SourceList=$work/sources.list"
    -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::Etc::PreferencesParts=$work/preferences.d"
    -o "Acquire::Languages=none" -o "APT::Sandbox::User="
  )
  mkdir -p "$CACHE/kubectl"
  # One chain, since `set -e` does not hold inside a condition. Renamed into place at its end: a
  # set-up that is stopped half-way leaves nothing that looks finished.
  {
    apt-get "${options[@]}" update &&
      (cd "$work" && apt-get "${options[@]}" download kubectl) &&
      dpkg -x "$work"/kubectl_*.deb "$work/unpacked"
  } 2>"$work/log" || { cat "$work/log" >&2; return 1; }
  install -m 0755 "$work/unpacked/usr/bin/kubectl" "$CACHE/kubectl/.kubectl.$$" &&
    mv "$CACHE/kubectl/.kubectl.$$" "$CACHE/kubectl/kubectl"
}

provide_kubectl() {
  if command -v kubectl >/dev/null && is_new_enough kubectl; then return; fi
  if [[ -x $CACHE/kubectl/kubectl ]]; then return; fi
  if ! command -v apt-get dpkg >/dev/null; then
    say "no kubectl 1.$KUBECTL_MINOR_MIN or newer on the PATH: put one there for the demo and the tests"
    return
  fi
  say "fetching kubectl (Debian 13's) into $CACHE/kubectl"
  fetch_kubectl || say "kubectl could not be fetched; put 1.$KUBECTL_MINOR_MIN or newer on the PATH"
}

install_packages
provide_kubectl
