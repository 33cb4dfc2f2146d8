#!/usr/bin/env bash
# Unpacks the QEMU of another Debian suite, with all libraries that it needs, beside the one that is installed:
#
#   scripts/unpack-qemu.sh SUITE [FOLDER]        SUITE: trixie, sid, …; FOLDER: .cache/qemu-SUITE by default
#
# Nothing is installed, and the package lists of this machine stay as they are. The packages come from the mirror that
# this machine's apt uses for Debian itself. FOLDER/qemu-system-x86_64 runs that QEMU, and FOLDER/qemu-img its tool. The
# last line on standard output is the path of the former, for the tests that take another QEMU for a host:
#
#   FERRY_QEMU_B=$(scripts/unpack-qemu.sh sid) node dist/test/support/run-tests.js e2e/strategies
. "$(dirname "$0")/common.sh"

usage() {
  sed -nE '2,11s/^# ?//p' "$0" >&2
  exit 2
}

if [ $# -lt 1 ] || [ $# -gt 2 ] || [[ $1 = -* ]]; then usage; fi
suite=$1
folder=$(realpath -m "${2:-.cache/qemu-$suite}")

# Prints the address from which apt takes Debian's own packages.
mirror() {
  # shellcheck disable=SC2016 # apt expands the variables
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -nE 's/^Debian Debian ([^ ]+)$/\1/p' | head -n 1
}

# Runs apt-get with lists of its own, and as if no package were installed, so that it takes every library.
apt_apart() {
  apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
    -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# Prints the folders of the unpacked libraries, joined with colons.
library_path() {
  find "$folder/root/usr/lib" "$folder/root/lib" \( -name '*.so' -o -name '*.so.*' \) -not -path '*/qemu/*' \
    -printf '%h\n' 2>/dev/null |
    sort -u | paste -s -d :
}

# Writes a program that runs an unpacked one with the unpacked libraries. The loader gets the program's name as its own
# (exec -a), so that the process is found by that name.
write_wrapper() { # program
  local root=$folder/root loader
  loader=$(find "$root" -name 'ld-linux-x86-64.so.2' | head -n 1)
  {
    echo '#!/usr/bin/env bash'
    echo "# $1 of Debian $suite, as scripts/unpack-qemu.sh has unpacked it."
    echo "export QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu"
    printf 'exec -a %s %s --library-path %s %s' "$1" "$loader" "$(library_path)" "$root/usr/bin/$1"
    [ "$1" = qemu-img ] || printf ' -L %s' "$root/usr/share/qemu" "$root/usr/share/seabios" "$root/usr/lib/ipxe/qemu"
    # shellcheck disable=SC2016 # the wrapper's own arguments
    echo ' "$@"'
  } >"$folder/$1"
  chmod +x "$folder/$1"
}

unpack() {
  local uri
  uri=$(mirror)
  [ -n "$uri" ] || { echo "apt on this machine has no source of Debian's own packages"; return 1; }
  work=$(mktemp -d "$folder.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
  : >"$work/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$work/sources.list"
  apt_apart update
  apt_apart install --yes --no-install-recommends --download-only qemu-system-x86 qemu-utils
  rm -rf "$folder"
  mkdir -p "$folder/root"
  local package
  for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
  write_wrapper qemu-system-x86_64
  write_wrapper qemu-img
  "$folder/qemu-system-x86_64" --version
  "$folder/qemu-system-x86_64" -machine help | grep -q pc-q35
}

mkdir -p "$(dirname "$folder")"
if ! "$folder/qemu-system-x86_64" --version >/dev/null 2>&1; then step "unpacking the QEMU of Debian $suite" unpack; fi
"$folder/qemu-system-x86_64" --version | head -n 1 >&2
echo "$folder/qemu-system-x86_64"
