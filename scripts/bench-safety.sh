#!/usr/bin/env bash
# npm run bench:safety [-- --json FILE]: set-up, then what mutual TLS, the journal and kept frames cost (test/bench/safety.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/safety.js "$@"
