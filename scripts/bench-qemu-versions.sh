#!/usr/bin/env bash
# npm run bench:qemu-versions [-- OPTIONS]: set-up, then a guest is moved between the installed QEMU and the QEMU of
# Debian's sid in every pairing. Options are in the head of test/bench/qemu-versions.ts.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/qemu-versions.js --other "$(scripts/unpack-qemu.sh sid)" "$@"
