#!/usr/bin/env bash
# npm run bench:planner [-- --workload NAME] [--link RATE] [--json FILE]: set-up, then predictions against what then happened.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/planner.js "$@"
