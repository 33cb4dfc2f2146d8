#!/usr/bin/env bash
# npm run bench:planner [-- --workload NAME] [--link RATE] [--json FILE]: runs the set-up, then compares the predictions
# of `ferry plan` with the migrations that follow (test/bench/planner.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/planner.js "$@"
