#!/usr/bin/env bash
# npm run bench:path [-- --beside DIR] [OPTIONS]: runs the set-up, then measures the whole path of a page
# (test/bench/path/main.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/path/main.js "$@"
