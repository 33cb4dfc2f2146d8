#!/usr/bin/env bash
# npm run test:faults [-- --list | --only REGEX | --soak --seed N --minutes M --faults N | --units]: set-up, then every
# fault at every phase of a migration, or random ones; with --units under systemd. See test/fault/README.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/fault/main.js "$@"
