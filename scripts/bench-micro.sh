#!/usr/bin/env bash
# npm run bench:micro [-- PATTERN]: runs the set-up, then the micro-benchmarks (test/bench/README.md).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --expose-gc dist/test/bench/micro.js "$@"
