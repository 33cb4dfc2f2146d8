#!/usr/bin/env bash
# npm run bench [-- --help]: set-up, then Ferry beside QEMU's own migration.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/suite.js "$@"
