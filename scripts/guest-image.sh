#!/bin/sh
# Builds the test guest's initramfs, .cache/guest/initramfs.cpio.gz. It holds busybox, an init, the workload, and the
# kernel modules that setup.sh has copied. The guest loads modules only when a test tells it to (init.modules). This
# script does nothing when its inputs have not changed since the last build.
set -eu
cd "$(dirname "$0")/.."
sources=test/support/guest
out=.cache/guest

say() { printf 'guest-image: %s\n' "$*" >&2; }

for tool in gcc cpio gzip sha256sum; do
  command -v "$tool" >/dev/null || { say "$tool is missing; run scripts/setup.sh"; exit 1; }
done
busybox=$(command -v busybox) || { say "busybox is missing; run scripts/setup.sh"; exit 1; }
# The guest has no libraries, so its busybox must be a static one.
if LC_ALL=C ldd "$busybox" >/dev/null 2>&1; then
  say "$busybox is not static; install busybox-static"
  exit 1
fi

inputs=$(cat scripts/guest-image.sh "$sources/init" "$sources"/*.[ch] "$busybox" "$out"/modules/*.ko 2>/dev/null |
  sha256sum | cut -d' ' -f1)
stamp=$out/initramfs.stamp
if [ -f "$out/initramfs.cpio.gz" ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$inputs" ]; then
  exit 0
fi

mkdir -p "$out"
root=$(mktemp -d "$out/root.XXXXXX")
trap 'rm -rf "$root"' EXIT INT TERM
mkdir -p "$root/bin"
cp "$busybox" "$root/bin/busybox"
cp "$sources/init" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
mkdir "$root/modules"
# find is used and not a pattern of the shell, since a kernel with all of these modules built in has no files for them
find "$out/modules" -name '*.ko' -exec cp {} "$root/modules/" \;
gcc -O2 -static -s -pthread -o "$root/workload" "$sources"/*.c
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0 --reproducible) | gzip -9n >"$root.gz"
mv "$root.gz" "$out/initramfs.cpio.gz"
printf '%s\n' "$inputs" >"$stamp"
say "built $out/initramfs.cpio.gz"
