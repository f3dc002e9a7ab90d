#!/usr/bin/env bash
# The identity provider of the tests: npm's oidc-provider, at the versions of its lock file.
#
# Run by `make setup`, again and again: what is there is left alone.
set -euo pipefail

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport"
SOURCE="$(dirname "$0")/../fakes/oidc"
key=$(sha256sum "$SOURCE/package-lock.json" | cut -c1-16)
folder="$CACHE/oidc/$key"

[[ -d $folder/node_modules ]] && exit 0
if ! command -v npm >/dev/null; then
  echo "setup: no npm, so logins are not tested: install nodejs and npm"
  exit 0
fi
echo "setup: fetching an identity provider for the tests"
mkdir -p "$CACHE/oidc"
work=$(mktemp -d "$CACHE/oidc/.making.XXXX")
trap 'rm -rf "$work"' EXIT
cp "$SOURCE"/package*.json "$work"
if ! npm ci --prefix "$work" --silent --no-audit --no-fund; then
  echo "setup: it can't be fetched, so logins are not tested"
  exit 0
fi
mv "$work" "$folder"
