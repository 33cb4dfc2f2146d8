#!/usr/bin/env bash
# npm run bench:node-versions -- --node PROGRAM… [OPTIONS]: runs the set-up, then measures the page path with several
# versions of Node in turns. The head of test/bench/node-versions.ts lists the options.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/node-versions.js "$@"
