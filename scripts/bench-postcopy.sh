#!/usr/bin/env bash
# npm run bench:postcopy [-- --rounds N] [--link RATE] [--order NAME] [--json FILE]: runs the set-up, then compares
# post-copy and hybrid with QEMU's own post-copy (test/bench/postcopy.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/postcopy.js "$@"
