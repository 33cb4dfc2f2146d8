#!/usr/bin/env bash
# npm run bench:postcopy [-- --rounds N] [--link RATE] [--json FILE]: set-up, then post-copy and hybrid beside QEMU's own.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/postcopy.js "$@"
