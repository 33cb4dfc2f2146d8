#!/usr/bin/env bash
# npm run demo [-- --json]: runs the set-up, then moves a guest while it works. See README.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/support/demo.js "$@"
