/**
 * What knip looks at, which is a part of `npm run check`: it finds files, exports and packages that nothing uses. An
 * export that only its own file uses counts as unused.
 */
import type { KnipConfig } from "knip";

/**
 * Writes a shell script as the module that knip reads in its place: the module imports each program and script that the
 * script names, and each package whose files or commands the script uses.
 */
function asModule(script: string): string {
  const all = (pattern: RegExp): string[] => [...script.matchAll(pattern)].map(([, name = ""]) => name);
  return [
    'import { execSync } from "node:child_process";',
    ...all(/\bdist\/([\w/-]+)\.js/g).map((program) => `import "../${program}.ts";`),
    ...all(/\b(shared\/[\w/-]+\.as\.ts)/g).map((source) => `import "../${source}";`),
    ...all(/(?<!\/)scripts\/([\w-]+\.sh)/g).map((other) => `import "./${other}";`),
    ...all(/node_modules\/(\w[\w-]*)/g).map((name) => `import "${name}";`),
    ...all(/\.bin\/([\w-]+)/g).map((command) => `execSync("${command}");`),
  ].join("\n");
}

const config: KnipConfig = {
  entry: [
    "scripts/*.sh",
    "test/support/*.sh",
    "test/**/*.test.ts",
    "test/support/lock-holder.ts",
    "test/bench/path/{source,destination}.ts",
  ],
  project: ["{agent-source,agent-destination,cli,scripts,shared,test}/**/*.{ts,sh}"],
  compilers: { sh: asModule },
  // Programs of the host, as mount and qemu-system-x86_64, are no packages of npm.
  exclude: ["binaries"],
};
export default config;
