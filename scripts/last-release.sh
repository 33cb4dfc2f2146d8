#!/usr/bin/env bash
# last-release.sh REVISION: makes the package of a release (a tag or a commit) once more, for the tests of the next
# version: test/vectors/last-release/ferry-VERSION.tgz, with its checksum beside it. The package has the programs as
# JavaScript without comments and source maps, the page kernels, proto/ and package.json. It has no tests and no
# node_modules. The same revision gives the same bytes. test/vectors/last-release/README.md says who reads them.
. "$(dirname "$0")/common.sh"

[ $# = 1 ] || fail "usage: scripts/last-release.sh REVISION"
commit=$(git rev-parse --verify --quiet "$1^{commit}") || fail "$1 is no commit here"
target=$PWD/test/vectors/last-release
work=$(mktemp -d "$PWD/.cache/last-release.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Prints the packages of a package-lock.json that run in the programs or compile them.
locked_packages() {
  node -e '
    const { packages } = JSON.parse(fs.readFileSync(0, "utf8"));
    const counts = ([path, { dev }]) => path !== "" && (!dev || /\/(typescript|assemblyscript|binaryen)$/.test(path));
    for (const [path, { version, integrity }] of Object.entries(packages).filter(counts)) console.log(path, version, integrity);
  '
}

# Compiles the unpacked sources with the packages of this checkout.
compile() {
  cd "$work" || return
  ln -s ../../node_modules node_modules
  sh scripts/build-kernels.sh
  cat >tsconfig.package.json <<-'JSON'
	{
	  "extends": "./tsconfig.json",
	  "compilerOptions": { "sourceMap": false, "removeComments": true, "noEmitOnError": true },
	  "include": ["shared", "agent-source", "agent-destination", "cli"]
	}
	JSON
  node_modules/.bin/tsc -p tsconfig.package.json
  rm -f dist/.tsbuildinfo
}

git archive "$commit" | tar -x -C "$work"
version=$(cd "$work" && node -p 'JSON.parse(fs.readFileSync("package.json", "utf8")).version')
[ "$(locked_packages <"$work/package-lock.json")" = "$(locked_packages <package-lock.json)" ] ||
  fail "$1 has other packages than this checkout: run this script in a clone of $1, after scripts/setup.sh"
step "compiling $1, which is Ferry $version" compile
rm -f "$target"/ferry-*.tgz*
tar -C "$work" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
  --mtime="@$(git show -s --format=%ct "$commit")" --transform="s,^,ferry-$version/," \
  -c dist generated/kernels.wasm package.json proto | gzip -9n >"$target/ferry-$version.tgz"
(cd "$target" && sha256sum "ferry-$version.tgz" | tee "ferry-$version.tgz.sha256")
