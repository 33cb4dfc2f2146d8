#!/usr/bin/env bash
# Brings a fresh Debian 12 or 13 or Ubuntu 24.04 with Node >= 20 to where everything runs: QEMU, a compiler, a kernel for the
# test guest (unpacked, not installed), npm packages, build. Running it again is quick and changes nothing.
. "$(dirname "$0")/common.sh"

OLDEST_QEMU=8.1
CLOUD_KERNELS="linux-image-cloud-amd64 linux-image-kvm linux-image-virtual linux-image-generic"

node_is_new_enough() {
  command -v node >/dev/null || fail "Node is missing; install Node 20 or later, then run this again"
  local major
  major=$(node -p 'process.versions.node.split(".")[0]')
  [ "$major" -ge 20 ] || fail "Node $(node -v) is too old; install Node 20 or later, then run this again"
}

not_older() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

qemu_is_there() {
  command -v qemu-system-x86_64 >/dev/null || return 1
  local version
  version=$(qemu-system-x86_64 --version | sed -nE '1s/.*version ([0-9.]+).*/\1/p')
  not_older "$OLDEST_QEMU" "$version"
}

static_busybox_is_there() {
  local busybox
  busybox=$(command -v busybox) || return 1
  ! LC_ALL=C ldd "$busybox" >/dev/null 2>&1
}

# Debian packages for what is missing, one a line.
missing_packages() {
  qemu_is_there || echo qemu-system-x86
  command -v gcc >/dev/null || echo gcc
  command -v g++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  command -v python3 >/dev/null || echo python3
  command -v cpio >/dev/null || echo cpio
  command -v ip >/dev/null || [ -x /sbin/ip ] || [ -x /usr/sbin/ip ] || echo iproute2
  command -v git >/dev/null || echo git
  command -v systemd-analyze >/dev/null || echo systemd
  static_busybox_is_there || echo busybox-static
  [ -n "$(find /usr/lib /usr/lib64 -name libc.a -print -quit 2>/dev/null)" ] || echo libc6-dev
}

# How to become root, if at all; fails when there is no way without asking.
root_prefix() {
  [ "$(id -u)" -eq 0 ] && return 0
  command -v sudo >/dev/null && sudo -n true 2>/dev/null && echo "sudo -n" && return 0
  return 1
}

codename() { sed -nE 's/^VERSION_CODENAME=//p' /etc/os-release; }

# Debian 12 has QEMU 7.2, which is too old and loses dirty pages under TCG: 10.0 is in its backports.
needs_backports() { [ "$(codename)" = bookworm ] && ! qemu_is_there; }

# The mirror that this host already uses for Debian itself; its backports are beside it.
mirror() {
  {
    grep -hE '^deb[[:space:]]' /etc/apt/sources.list /etc/apt/sources.list.d/*.list | grep -oE '[a-z+]+://[^ ]+ +bookworm( |$)' | cut -d ' ' -f 1
    # deb822: the URIs of the first stanza that names the suite itself
    awk 'BEGIN { RS = "" } /Suites:[^\n]*bookworm([ \n]|$)/ && match($0, /URIs:[ ]*[^ \n]+/) {
      uri = substr($0, RSTART, RLENGTH); sub(/URIs:[ ]*/, "", uri); print uri }' /etc/apt/sources.list.d/*.sources
  } 2>/dev/null | head -n 1
}

backports_entry() { echo "deb $(mirror) bookworm-backports main"; }

install_packages() {
  local packages=$1 root
  if ! root=$(root_prefix); then
    say "setup: these packages are missing, and installing them needs root:"
    needs_backports && say "  echo '$(backports_entry)' | sudo tee /etc/apt/sources.list.d/ferry-backports.list"
    say "  sudo apt-get update"
    needs_backports && say "  sudo apt-get install -y --no-install-recommends -t bookworm-backports qemu-system-x86"
    # shellcheck disable=SC2086
    say "  sudo apt-get install -y --no-install-recommends" $packages
    exit 1
  fi
  command -v apt-get >/dev/null || fail "apt-get is missing; install by hand:" $packages
  if needs_backports && [ -z "$(mirror)" ]; then
    fail "no Debian mirror found in /etc/apt; QEMU $OLDEST_QEMU or later comes from bookworm-backports: add them, then run this again"
  fi
  local apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300"
  if needs_backports && ! grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d; then
    backports_entry | $root tee /etc/apt/sources.list.d/ferry-backports.list >/dev/null
  fi
  step "updating the package lists" $apt update
  if needs_backports; then
    step "installing QEMU from bookworm-backports" $apt install -y --no-install-recommends -t bookworm-backports qemu-system-x86
  fi
  # shellcheck disable=SC2086
  step "installing $(echo $packages)" $apt install -y --no-install-recommends $packages
}

# A kernel package of the distribution, unpacked into .cache/guest without installing it.
unpack_kernel() {
  local folder root package=""
  folder=$(mktemp -d .cache/kernel.XXXXXX)
  local meta
  if ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 && root=$(root_prefix); then
    $root apt-get update
  fi
  for meta in $CLOUD_KERNELS; do
    package=$(apt-cache depends "$meta" 2>/dev/null | sed -nE 's/^ *Depends: (linux-image-[^ ]*[0-9][^ ]*)$/\1/p' | head -n 1)
    [ -n "$package" ] && break
  done
  [ -n "$package" ] || { echo "no kernel package found; run 'apt-get update' as root, then this again"; return 1; }
  # apt's own user may not write into our folder: it is told not to change users
  (cd "$folder" && apt-get -o APT::Sandbox::User=root download "$package")
  dpkg-deb -x "$folder"/*.deb "$folder/unpacked"
  mkdir -p .cache/guest
  cp "$folder"/unpacked/boot/vmlinuz-* .cache/guest/vmlinuz.new
  chmod 644 .cache/guest/vmlinuz.new
  mv .cache/guest/vmlinuz.new .cache/guest/vmlinuz
  rm -rf "$folder"
}

# Packages whose install scripts must have run: npm 11 may hold them back, and zstd-napi's prebuilt may not be reachable.
install_modules() {
  npm ci --no-audit --no-fund || return 1
  node -e 'import("zstd-napi")' 2>/dev/null && return 0
  # the headers of this very Node, where they are installed: node-gyp would download them
  local headers=""
  [ -f /usr/include/node/node.h ] && headers=/usr
  env ${headers:+npm_config_nodedir=$headers} npm rebuild zstd-napi --foreground-scripts && node -e 'import("zstd-napi")'
}

main() {
  : >"$SETUP_LOG"
  node_is_new_enough
  local packages
  packages=$(missing_packages)
  [ -z "$packages" ] || install_packages "$(echo $packages)"
  qemu_is_there || fail "QEMU $OLDEST_QEMU or later is needed; this host has $(qemu-system-x86_64 --version 2>/dev/null | head -n 1 || echo none)"
  [ -f .cache/guest/vmlinuz ] || step "unpacking a kernel for the test guest" unpack_kernel
  local lock
  lock=$(hash_of package-lock.json package.json)-$(node -p process.versions.modules)
  if ! fresh modules "$lock" || [ ! -d node_modules ]; then
    step "installing npm packages" install_modules
    stamp modules "$lock"
  fi
  scripts/build.sh
}

main "$@"
