#!/usr/bin/env bash
# Checks the types, lint and format of the code, that nothing in it is unused, spelling, shell scripts, the protocol, and
# where the packages come from. It changes no source. test/tidy.test.ts checks the rest.
. "$(dirname "$0")/common.sh"

echo "check: types"
scripts/build.sh
echo "check: biome"
node_modules/.bin/biome check --error-on-warnings .
echo "check: unused files, exports and packages"
node_modules/.bin/knip --no-progress --treat-config-hints-as-errors
echo "check: spelling"
node_modules/.bin/cspell lint --no-progress --no-summary --cache --cache-strategy content --cache-location .cache/cspell .
echo "check: shell scripts"
node dist/scripts/check-shell.js
echo "check: buf lint"
node_modules/.bin/buf lint
echo "check: buf breaking against the last release"
last_release=(test/vectors/last-release/ferry-*.tgz)
node_modules/.bin/buf breaking --against "${last_release[0]}#strip_components=1,subdir=proto"
echo "check: checksums, install scripts, licences and known holes of the packages"
node dist/scripts/check-supply.js
