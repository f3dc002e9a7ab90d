#!/usr/bin/env bash
# Keycloak into the cache, for the tests of logins at a second identity provider: 165 MB from Maven
# Central, and half a minute to build what makes it start faster.
#
# Run by `make setup`, again and again: what is there is left alone. Without Java, Maven or a registry
# that has it nothing fails: it says what is not tested.
set -euo pipefail

VERSION=26.5.6
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/homeport/keycloak"
FETCH_S=600

[[ -d $CACHE/keycloak-$VERSION ]] && exit 0
without() {
  echo "setup: $1, so logins at Keycloak are not tested, at npm's oidc-provider alone"
  exit 0
}
for program in mvn java unzip; do
  command -v $program >/dev/null || without "no $program (apt-get install maven default-jdk-headless unzip)"
done
echo "setup: fetching and building Keycloak (two minutes)"
mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/.making.XXXX")
trap 'rm -rf "$work"' EXIT
artifact=org.keycloak:keycloak-quarkus-dist:$VERSION:zip
timeout $FETCH_S mvn -q -B dependency:copy -Dartifact=$artifact -DoutputDirectory="$work" \
  >"$work/log" 2>&1 || without "the Maven registry does not give Keycloak"
unzip -q "$work"/*.zip -d "$work"
nice -n 10 "$work/keycloak-$VERSION/bin/kc.sh" build --db=dev-mem --cache=local >"$work/log" 2>&1 ||
  without "Keycloak can't be built: $(tail -1 "$work/log")"
# Another may have been faster.
mv -T "$work/keycloak-$VERSION" "$CACHE/keycloak-$VERSION" 2>/dev/null ||
  [[ -d $CACHE/keycloak-$VERSION ]]
