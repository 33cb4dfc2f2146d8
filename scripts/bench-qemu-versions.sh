#!/usr/bin/env bash
# npm run bench:qemu-versions [-- OPTIONS]: runs the set-up, then moves a guest between the installed QEMU and the QEMU
# of Debian's sid in every pairing. The head of test/bench/qemu-versions.ts lists the options.
. "$(dirname "$0")/common.sh"
scripts/setup.sh
exec node dist/test/bench/qemu-versions.js --other "$(scripts/unpack-qemu.sh sid)" "$@"
