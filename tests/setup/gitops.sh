#!/bin/sh
# Programs with Flux's apply library and with Argo CD's engine into the cache, for the tests that let
# them manage our kinds. Built from their Go modules, by two processes at low priority: eleven minutes
# of a processor for both, once for each state of their sources. Prints where they are.
set -eu
# The libraries want a newer Go than most machines have; it is a Go module too.
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false
HERE="$(cd "$(dirname "$0")/../conformance" && pwd)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/gitops"
mkdir -p "$CACHE"
for name in flux argo; do
    cd "$HERE/$name"
    program="$CACHE/$name-$(cat go.mod go.sum main.go | sha256sum | cut -c1-16)"
    if [ ! -x "$program" ]; then
        command -v go >/dev/null || { echo "building $program needs Go 1.21 or newer" >&2; exit 1; }
        echo "building $program: some minutes"
        GOMAXPROCS=2 nice -n 15 go build -p 2 -ldflags "-s -w" \
            -o "$program.building" .
        mv "$program.building" "$program"
    fi
    echo "$program"
done
