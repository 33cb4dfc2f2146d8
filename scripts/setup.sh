#!/usr/bin/env bash
# Makes a fresh Debian 12 or 13 ready to run everything here. It installs QEMU and a compiler, unpacks a kernel for the
# test guest without installing it, installs the npm packages with the Node that runs everything here, and builds. To
# run it again is quick and changes nothing. docs/supply.md says what is fetched, and how it is checked.
. "$(dirname "$0")/common.sh"

# the test guests are emulated, and QEMU before 9.0 loses writes of such guests (docs/decisions/0023)
OLDEST_QEMU=9.0
CLOUD_KERNELS="linux-image-cloud-amd64 linux-image-kvm linux-image-virtual linux-image-generic"

# The host's Node runs npm, since it is npm that installs the other Node. Debian 12's Node is new enough for that.
OLDEST_NPM_NODE=18

on_host() { env PATH="$HOST_PATH" "$@"; }

npm_can_run() {
  local version
  version=$(on_host node -p process.versions.node)
  not_older "$OLDEST_NPM_NODE" "$version" ||
    fail "Node $version is too old for npm; install Debian's packages nodejs and npm, then run this again"
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

# Prints the Debian packages for what is missing, one a line.
missing_packages() {
  on_host sh -c 'command -v node' >/dev/null || echo nodejs
  on_host sh -c 'command -v npm' >/dev/null || echo npm
  qemu_is_there || echo qemu-system-x86
  command -v gcc >/dev/null || echo gcc
  command -v g++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  command -v python3 >/dev/null || echo python3
  command -v cpio >/dev/null || echo cpio
  command -v xz >/dev/null || echo xz-utils
  command -v ip >/dev/null || [ -x /sbin/ip ] || [ -x /usr/sbin/ip ] || echo iproute2
  command -v git >/dev/null || echo git
  command -v openssl >/dev/null || echo openssl
  command -v shellcheck >/dev/null || echo shellcheck
  command -v systemd-analyze >/dev/null || echo systemd
  static_busybox_is_there || echo busybox-static
  # gcc prints the whole path of a file that it finds, and the bare name of a file that it does not find
  [ -f "$(gcc -print-file-name=libc.a 2>/dev/null)" ] || echo libc6-dev
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# True if this script can be root without asking for a password.
may_install() { is_root || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

as_root() { if is_root; then "$@"; else sudo -n "$@"; fi; }

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@"; }

codename() { sed -nE 's/^VERSION_CODENAME=//p' /etc/os-release; }

# True if QEMU has to come from the backports. Debian 12 has QEMU 7.2, which is too old and loses dirty pages under TCG.
# Its backports have 10.0.
needs_backports() { [ "$(codename)" = bookworm ] && ! qemu_is_there; }

# Prints the mirror that this host already uses for Debian itself. The same mirror has the backports.
mirror() {
  {
    grep -hE '^deb[[:space:]]' /etc/apt/sources.list /etc/apt/sources.list.d/*.list | grep -oE '[a-z+]+://[^ ]+ +bookworm( |$)' | cut -d ' ' -f 1
    # in files of the format deb822, the mirror is the first URI of the first stanza that names the suite itself
    awk 'BEGIN { RS = "" } /Suites:[^\n]*bookworm([ \n]|$)/ && match($0, /URIs:[ ]*[^ \n]+/) {
      uri = substr($0, RSTART, RLENGTH); sub(/URIs:[ ]*/, "", uri); print uri }' /etc/apt/sources.list.d/*.sources
  } 2>/dev/null | head -n 1
}

backports_entry() { echo "deb $(mirror) bookworm-backports main"; }

# True if apt has the backports. apt itself is asked, since a line that names them may be a comment, or switched off.
# shellcheck disable=SC2016 # apt expands the variable
has_backports() { apt-get indextargets --format '$(CODENAME)' 2>/dev/null | grep -x bookworm-backports >/dev/null; }

add_backports() { backports_entry | as_root tee /etc/apt/sources.list.d/ferry-backports.list; }

print_commands() { # packages …
  say "setup: these packages are missing, and installing them needs root:"
  if needs_backports && ! has_backports; then
    say "  echo '$(backports_entry)' | sudo tee /etc/apt/sources.list.d/ferry-backports.list"
  fi
  say "  sudo apt-get update"
  if needs_backports; then
    say "  sudo apt-get install -y --no-install-recommends -t bookworm-backports qemu-system-x86"
  fi
  say "  sudo apt-get install -y --no-install-recommends $*"
}

install_packages() {
  command -v apt-get >/dev/null || fail "apt-get is missing; install by hand: $*"
  if needs_backports && ! has_backports && [ -z "$(mirror)" ]; then
    fail "no Debian mirror found in /etc/apt; QEMU $OLDEST_QEMU or later comes from bookworm-backports: add them, then run this again"
  fi
  if ! may_install; then
    print_commands "$@"
    exit 1
  fi
  if needs_backports && ! has_backports; then
    step "adding bookworm-backports to the package sources" add_backports
  fi
  step "updating the package lists" apt_get update
  if needs_backports; then
    step "installing QEMU from bookworm-backports" \
      apt_get install -y --no-install-recommends -t bookworm-backports qemu-system-x86
  fi
  step "installing $*" apt_get install -y --no-install-recommends "$@"
}

# Prints the package of the distribution's newest kernel, or nothing when apt knows none. CLOUD_KERNELS are packages
# that depend on the newest kernel and have no version in their names.
kernel_package() {
  local meta package=""
  for meta in $CLOUD_KERNELS; do
    package=$(apt-cache depends "$meta" 2>/dev/null | sed -nE 's/^ *Depends: (linux-image-[^ ]*[0-9][^ ]*)$/\1/p' | head -n 1) || true
    [ -z "$package" ] || break
  done
  echo "$package"
}

# The modules that a guest loads when a test tells it to (init.modules). Each comes after the modules that it needs.
GUEST_MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_balloon"

# Copies GUEST_MODULES from an unpacked kernel into a folder. Debian 13 has its modules compressed, and a module that is
# built into the kernel has no file.
copy_modules() { # unpacked-kernel folder
  local module file
  mkdir -p "$2"
  for module in $GUEST_MODULES; do
    file=$(find "$1" -name "$module.ko*" | head -n 1)
    case $file in
      *.ko) cp "$file" "$2/$module.ko" ;;
      *.ko.xz) xz -dc "$file" >"$2/$module.ko" ;;
      *.ko.zst) zstd -dcq "$file" >"$2/$module.ko" ;;
    esac
  done
}

# Unpacks a kernel package of the distribution into .cache/guest, with a few of its modules, without installing it.
unpack_kernel() {
  local package
  kernel_folder=$(mktemp -d .cache/kernel.XXXXXX)
  trap 'rm -rf "$kernel_folder"' EXIT
  package=$(kernel_package)
  if [ -z "$package" ] && may_install; then
    apt_get update
    package=$(kernel_package)
  fi
  if [ -z "$package" ]; then
    echo "no kernel package found; run 'sudo apt-get update', then this again"
    return 1
  fi
  # apt is told not to change users, since its own user may not write into this folder
  (cd "$kernel_folder" && apt-get -o APT::Sandbox::User=root download "$package")
  dpkg-deb -x "$kernel_folder"/*.deb "$kernel_folder/unpacked"
  mkdir -p .cache/guest "$kernel_folder/modules"
  cp "$kernel_folder"/unpacked/boot/vmlinuz-* "$kernel_folder/vmlinuz"
  chmod 644 "$kernel_folder/vmlinuz"
  copy_modules "$kernel_folder/unpacked" "$kernel_folder/modules"
  mv "$kernel_folder/vmlinuz" .cache/guest/vmlinuz
  rm -rf .cache/guest/modules
  mv "$kernel_folder/modules" .cache/guest/modules
}

# zstd-napi is the one package here that has to be compiled. Its own install script is never run, since that would fetch
# a binary that nothing vouches for. The headers are those of the pinned Node. zstd-napi is written for Node-API 8,
# which every later Node has.
ZSTD_NAPI_VERSION=8

zstd_loads() { node -e 'require("zstd-napi/binding.js")'; }

build_zstd() {
  local folder=node_modules/zstd-napi kept
  # the compiled binding is kept while the sources, the Node, the compiler and the machine's architecture are the same
  kept=.cache/zstd-napi/$(find "$folder/src" "$folder/deps" "$folder"/*.gyp* -type f -print0 | sort -z | xargs -0 cat |
    hash_of - <(node -p 'process.versions.modules + process.arch') <(g++ -dumpfullversion) <(echo "$ZSTD_NAPI_VERSION"))
  mkdir -p "$folder/build/Release"
  if [ -f "$kept/binding.node" ] && cp "$kept/binding.node" "$folder/build/Release/" && zstd_loads; then return; fi
  (cd "$folder" && ../.bin/node-gyp rebuild --jobs=max --nodedir="$OWN_NODE" --napi_build_version="$ZSTD_NAPI_VERSION")
  zstd_loads
  rm -rf .cache/zstd-napi
  mkdir -p "$kept"
  cp "$folder/build/Release/binding.node" "$kept/"
}

# No package runs a script of its own (.npmrc says so too). docs/supply.md names the packages that would.
install_modules() {
  on_host npm ci --ignore-scripts --no-audit --no-fund
  build_zstd
}

main() {
  : >"$SETUP_LOG"
  local packages
  packages=$(missing_packages)
  # shellcheck disable=SC2086 # one argument a package
  [ -z "$packages" ] || install_packages $packages
  npm_can_run
  qemu_is_there || fail "QEMU $OLDEST_QEMU or later is needed; this host has $(qemu-system-x86_64 --version 2>/dev/null | head -n 1 || echo none)"
  if ! [ -f .cache/guest/vmlinuz ] || ! [ -d .cache/guest/modules ]; then
    step "unpacking a kernel for the test guest" unpack_kernel
  fi
  local lock
  lock=$(hash_of package-lock.json package.json)
  # the stamp is in the folder that it stands for, so that it is removed with the folder
  if ! fresh node_modules/.ferry-stamp "$lock"; then
    step "installing npm packages" install_modules
    stamp node_modules/.ferry-stamp "$lock"
  fi
  scripts/build.sh
}

main "$@"
