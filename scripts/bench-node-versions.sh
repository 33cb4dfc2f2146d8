#!/usr/bin/env bash
# npm run bench:node-versions -- --node PROGRAM… [OPTIONS]: set-up, then the page path by several Nodes in turns.
# Options are in the head of test/bench/node-versions.ts.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/node-versions.js "$@"
