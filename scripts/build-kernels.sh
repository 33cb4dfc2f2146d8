#!/bin/sh
# Compiles the page kernels (shared/page/kernels.as.ts) to generated/kernels.wasm. Does nothing when neither the source,
# nor this script, nor the compiler has changed.
set -eu
cd "$(dirname "$0")/.."

source=shared/page/kernels.as.ts
output=generated/kernels.wasm
stamp=generated/kernels.inputs

inputs=$(cat "$source" scripts/build-kernels.sh node_modules/assemblyscript/package.json | sha256sum | cut -d ' ' -f 1)
if [ -f "$output" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ]; then
  exit 0
fi

mkdir -p generated
partial="generated/.kernels.$$.wasm"
trap 'rm -f "$partial"' EXIT

# The kernels run in a memory that their caller makes and shares with the compression threads. It has any size up to
# 65535 pieces of 64 KiB (shared/page/kernel-memory.ts). The stub runtime is never used, since the kernels allocate
# nothing.
node_modules/.bin/asc "$source" --outFile "$partial" \
  -O3 --converge --noAssert --runtime stub \
  --enable simd --enable threads \
  --importMemory --noExportMemory --sharedMemory --initialMemory 1 --maximumMemory 65535

# the file is renamed into its place, so that a process that loads the kernels meanwhile never reads half of them
mv "$partial" "$output"
echo "$inputs" > "$stamp"
