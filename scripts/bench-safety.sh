#!/usr/bin/env bash
# npm run bench:safety [-- --json FILE]: runs the set-up, then measures what mutual TLS, the journal and the copies of
# unacknowledged frames cost (test/bench/safety.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/safety.js "$@"
