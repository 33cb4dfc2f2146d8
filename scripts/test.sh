#!/usr/bin/env bash
# npm test [PATTERN …]: set-up, checks, unit tests, then the tests with real QEMUs one after the other. With patterns only the
# test files whose path contains one of them. The last line says how many assertions passed and failed.
. "$(dirname "$0")/common.sh"
exec </dev/null

scripts/setup.sh
[ $# -gt 0 ] || scripts/check.sh
exec node dist/test/support/run-tests.js "$@"
