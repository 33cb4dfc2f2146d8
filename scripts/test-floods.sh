#!/usr/bin/env bash
# npm run test:floods [-- --rounds N]: runs the set-up, then moves a guest in turns with and without a flood of hostile
# connections and messages against both agents. The results are in docs/results/floods.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/flood/main.js "$@"
