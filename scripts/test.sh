#!/usr/bin/env bash
# npm test [PATTERN …]: runs the set-up, the checks, the unit tests, and beside them the tests with real QEMUs. With
# patterns, it skips the checks and runs only the test files whose path contains one of the patterns. The last line says
# how many tests passed and failed.
. "$(dirname "$0")/common.sh"
exec </dev/null

scripts/setup.sh
[ $# -gt 0 ] || scripts/check.sh
exec node dist/test/support/run-tests.js "$@"
