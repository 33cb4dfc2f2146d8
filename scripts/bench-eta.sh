#!/usr/bin/env bash
# npm run bench:eta [-- --rounds N] [--views FILE]: runs the set-up, then compares the ETA with the time that each
# migration really took (test/bench/eta.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/eta.js "$@"
