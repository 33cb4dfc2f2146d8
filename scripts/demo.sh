#!/usr/bin/env bash
# npm run demo [-- --json]: set-up, then a guest that moves while it works. See README.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/support/demo.js "$@"
