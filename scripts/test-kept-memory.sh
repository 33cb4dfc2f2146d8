#!/usr/bin/env bash
# npm run test:kept-memory [-- --migrations N]: runs the set-up, then moves a guest with --verify by agents that keep
# the memory of a migration and by agents that do not, in turns (test/kept-memory/main.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/kept-memory/main.js "$@"
