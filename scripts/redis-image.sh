#!/usr/bin/env bash
# Builds .cache/guest/redis.cpio.gz: the test guest's initramfs with the distribution's redis-server and redis-benchmark
# and the libraries that they need. The packages are unpacked and not installed. This script does nothing when its
# inputs have not changed since the last build.
. "$(dirname "$0")/common.sh"
sources=test/support/guest
out=.cache/guest
packages=.cache/redis

# Prints the packages of libraries that the given packages depend on.
with_libraries() {
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    grep -E '^lib' | cut -d : -f 1 | sort -u
}

download() {
  rm -rf "$packages"
  mkdir -p "$packages/root"
  # apt is told not to change users, since its own user may not write into this folder
  # shellcheck disable=SC2046 # one argument a package
  (cd "$packages" && apt-get -o APT::Sandbox::User=root download redis-server redis-tools $(with_libraries redis-server redis-tools))
  local package
  for package in "$packages"/*.deb; do dpkg-deb -x "$package" "$packages/root"; done
}

# Prints the path of a library in the unpacked packages.
find_library() { find "$packages/root" -name "$1" -not -type d | head -n 1; }

# Copies a program or library into the image, and the libraries that it says it needs. Files that are there already are
# left as they are.
copy_with_needs() { # from to
  [ ! -e "$root$2" ] || return 0
  mkdir -p "$(dirname "$root$2")"
  cp -L "$1" "$root$2"
  local needed file
  for needed in $(readelf -d "$1" | sed -nE 's/.*\(NEEDED\).*\[(.*)\].*/\1/p'); do
    file=$(find_library "$needed")
    [ -n "$file" ] || { echo "$1 needs $needed, and no package has it"; return 1; }
    # each program has the path of the loader written into it
    case $needed in
      ld-linux-x86-64.so.2) copy_with_needs "$file" "/lib64/$needed" ;;
      *) copy_with_needs "$file" "/lib/x86_64-linux-gnu/$needed" ;;
    esac
  done
}

build() {
  [ -x "$packages/root/usr/bin/redis-benchmark" ] || download
  root=$(mktemp -d "$out/redis.XXXXXX")
  trap 'rm -rf "$root"' EXIT
  mkdir -p "$root/bin"
  cp "$(command -v busybox)" "$root/bin/busybox"
  ln -s busybox "$root/bin/sh"
  cp "$sources/init-redis" "$root/init"
  chmod 755 "$root/init" "$root/bin/busybox"
  gcc -O2 -static -s -pthread -o "$root/workload" "$sources"/*.c
  local program
  for program in redis-server redis-benchmark redis-cli; do
    copy_with_needs "$packages/root/usr/bin/$program" "/usr/bin/$program"
  done
  loader=$(find_library ld-linux-x86-64.so.2)
  copy_with_needs "$loader" /lib64/ld-linux-x86-64.so.2
  (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0 --reproducible) | gzip -9n >"$out/redis.cpio.gz.new"
  mv "$out/redis.cpio.gz.new" "$out/redis.cpio.gz"
}

inputs=$(hash_of scripts/redis-image.sh "$sources/init-redis" "$sources"/*.[ch])
[ -f "$out/redis.cpio.gz" ] && fresh "$out/redis.stamp" "$inputs" && exit 0
mkdir -p "$out"
step "building the guest with redis" build
stamp "$out/redis.stamp" "$inputs"
