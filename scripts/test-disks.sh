#!/usr/bin/env bash
# npm run test:disks [-- --seed N --migrations N --minutes M]: set-up, then a guest that writes to its disk is moved back and
# forth while locks, media, snapshots and merges come between. See test/soak/README.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/soak/main.js "$@"
