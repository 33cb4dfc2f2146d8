#!/usr/bin/env bash
# Page kernels, guest image, TypeScript. Each step is skipped when what it is made from has not changed.
. "$(dirname "$0")/common.sh"

compile() {
  node_modules/.bin/tsc -p .
  # what has no source any more is no part of the build
  find dist -name '*.js' | while read -r built; do
    source=${built#dist/}
    [ -f "${source%.js}.ts" ] || rm -f "$built" "$built.map"
  done
  chmod +x dist/cli/main.js dist/agent-source/main.js dist/agent-destination/main.js
}

step_if_stale() { # title, stamp, hash, command …
  local title=$1 name=$2 hash=$3
  shift 3
  fresh "$name" "$hash" && return 0
  step "$title" "$@"
  stamp "$name" "$hash"
}

# both look for themselves whether there is anything to do
quietly() {
  "$@" >>"$SETUP_LOG" 2>&1 && return 0
  tail -n 25 "$SETUP_LOG" >&2
  fail "failed: $*"
}

quietly scripts/build-kernels.sh
quietly scripts/guest-image.sh
sources=$(find shared agent-source agent-destination cli test -name '*.ts' -not -name '*.as.ts' -print0 | sort -z | xargs -0 cat tsconfig.json package-lock.json | sha256sum | cut -d ' ' -f 1)
[ -f dist/cli/main.js ] || rm -f .cache/compiled.stamp
step_if_stale "compiling" compiled "$sources" compile
