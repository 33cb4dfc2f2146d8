#!/usr/bin/env bash
# npm run bench:eta [-- --rounds N] [--views FILE]: set-up, then the ETA against what then happened (test/bench/eta.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/eta.js "$@"
