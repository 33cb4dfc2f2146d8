#!/usr/bin/env bash
# npm run test:disks [-- --seed N --migrations N --minutes M]: runs the set-up, then moves a guest that writes to its
# disk back and forth, while other programs lock its image, change its media, and take and merge snapshots. See
# test/soak/README.md.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node --enable-source-maps dist/test/soak/main.js "$@"
