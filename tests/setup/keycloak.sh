#!/bin/sh
# Keycloak into the cache, for the tests of logins at a second identity provider: 165 MB from Maven
# Central, and half a minute to build what makes it start faster. Run by hand; `make soak` uses it.
set -eu
VERSION=26.5.6
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/keycloak"
[ -d "$CACHE/keycloak-$VERSION" ] && exit 0
for program in mvn java unzip; do
    command -v $program >/dev/null || { echo "Keycloak needs $program: apt-get install maven default-jdk-headless unzip" >&2; exit 1; }
done
mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/.making.XXXX")
trap 'rm -rf "$work"' EXIT
mvn -q -B dependency:copy -Dartifact=org.keycloak:keycloak-quarkus-dist:$VERSION:zip -DoutputDirectory="$work"
unzip -q "$work"/*.zip -d "$work"
nice -n 10 "$work/keycloak-$VERSION/bin/kc.sh" build --db=dev-mem --cache=local
mv "$work/keycloak-$VERSION" "$CACHE"
