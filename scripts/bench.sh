#!/usr/bin/env bash
# npm run bench [-- --help]: runs the set-up, then compares Ferry with QEMU's own migration (test/bench/suite.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/suite.js "$@"
