#!/usr/bin/env bash
# npm run test:floods [-- --rounds N]: set-up, then a guest is moved in turns with a flood of hostile connections and
# messages against both agents and without. What came of it: docs/results/floods.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/flood/main.js "$@"
