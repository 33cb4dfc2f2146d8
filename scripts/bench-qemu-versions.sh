#!/usr/bin/env bash
# npm run bench:qemu-versions [-- OPTIONS]: set-up, then the installed QEMU and sid's in every pairing (test/bench/qemu-versions.ts).
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/qemu-versions.js --other "$(scripts/unpack-qemu.sh sid)" "$@"
