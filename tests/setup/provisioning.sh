#!/usr/bin/env bash
# What judges our output for provisioning systems: Ignition's own parser, built from its Go module,
# and pykickstart's ksvalidator in a virtual environment of its own (it is under the GPL, and no part
# of anything here).
#
# Run by `make setup`, again and again: what is there is left alone. Half a minute once.
set -euo pipefail

HERE="$(cd "$(dirname "$0")" && pwd)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/provisioning"
mkdir -p "$CACHE"

key_of() { cat "$@" | sha256sum | cut -c1-16; }

ignition() {
  cd "$HERE/../conformance/ignition"
  local program
  program="$CACHE/ignition-$(key_of go.mod go.sum main.go)"
  [[ -x $program ]] && return
  if ! command -v go >/dev/null; then
    echo "setup: no go, so Ignition's parser does not judge our output: install Go 1.22 or newer"
    return
  fi
  echo "setup: building Ignition's parser for the tests"
  if ! GOFLAGS=-buildvcs=false GOTOOLCHAIN=auto nice -n 15 \
    go build -p 2 -ldflags "-s -w" -o "$program.building" .; then
    echo "setup: it can't be built, so it does not judge our output"
    return
  fi
  mv "$program.building" "$program"
}

kickstart() {
  local folder
  folder="$CACHE/kickstart-$(key_of "$HERE/kickstart.txt")"
  # The last step of making it.
  [[ -e $folder/made ]] && return
  echo "setup: fetching ksvalidator for the tests"
  rm -rf "$folder"
  if ! { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet \
    --disable-pip-version-check --require-hashes -r "$HERE/kickstart.txt"; }; then
    echo "setup: it can't be fetched, so it does not judge our output"
    return
  fi
  touch "$folder/made"
}

(ignition)
(kickstart)
