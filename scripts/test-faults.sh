#!/usr/bin/env bash
# npm run test:faults [-- --list | --only REGEX | --soak --seed N --minutes M --faults N | --units]: runs the set-up,
# then causes every fault at every phase of a migration, or random faults. With --units the agents run under systemd.
# See test/fault/README.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/fault/main.js "$@"
