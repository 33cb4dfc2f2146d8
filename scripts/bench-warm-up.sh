#!/usr/bin/env bash
# npm run bench:warm-up [-- --pairs N] [--migrations N] [--json FILE]: runs the set-up, then measures what the agents'
# warm-up brings (test/bench/warm-up.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/warm-up.js "$@"
