#!/usr/bin/env bash
# Builds the page kernels, the guest image and the TypeScript. A step is skipped when its inputs have not changed.
. "$(dirname "$0")/common.sh"

compile() {
  node_modules/.bin/tsc -p .
  # a compiled file whose source is gone is removed
  find dist -name '*.js' | while read -r built; do
    source=${built#dist/}
    [ -f "${source%.js}.ts" ] || rm -f "$built" "$built.map"
  done
  chmod +x dist/cli/main.js dist/agent-source/main.js dist/agent-destination/main.js
}

# Runs a script that finds out by itself whether it has anything to do. Its output is shown only when it fails.
quietly() {
  "$@" >>"$SETUP_LOG" 2>&1 && return 0
  tail -n 25 "$SETUP_LOG" >&2
  fail "failed: $*"
}

quietly scripts/build-kernels.sh
quietly scripts/guest-image.sh
# the names count as well as the contents: a file that is renamed is compiled under its new name
sources=$(find shared agent-source agent-destination cli scripts test -name '*.ts' -not -name '*.as.ts' -print0 | sort -z |
  xargs -0 sha256sum tsconfig.json package-lock.json | hash_of -)
# tsc writes only the files that its own record (.tsbuildinfo) does not list, so the record is removed where the build
# is gone
[ -f dist/cli/main.js ] || rm -f .cache/compiled.stamp dist/.tsbuildinfo
if ! fresh .cache/compiled.stamp "$sources"; then
  step "compiling" compile
  stamp .cache/compiled.stamp "$sources"
fi
