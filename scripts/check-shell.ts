/**
 * A part of `npm run check`. It runs ShellCheck, which the set-up installs, over every shell script of the repository,
 * and over the shell programs that the units of systemd have between quotes.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../shared/runtime/package-root.ts";

const root = packageRoot();
const read = (file: string): string => readFileSync(join(root, file), "utf8");

const listed = ["ls-files", "--cached", "--others", "--exclude-standard"];
const files = execFileSync("git", listed, { cwd: root, encoding: "utf8" })
  .split("\n")
  .filter((file) => file !== "" && existsSync(join(root, file)));

/** True if the file is for a shell, by its name or by its first line: scripts that others source have no such line. */
const isScript = (file: string): boolean => file.endsWith(".sh") || /^#!.*\b(?:ba)?sh\n/.test(read(file));

/**
 * Reads the programs that a unit hands to `sh -c`, as the shell gets them: systemd reads `%%` as `%`, and `$$` as `$`.
 * Each begins with the line that a script would have for the shell's options.
 */
const programsOf = (unit: string): readonly string[] =>
  [...read(unit).matchAll(/^Exec\w+=.*?\/sh -(e?u?)c '([^']*)'/gm)].map(([, options = "", program = ""]) => {
    const first = options === "" ? "#!/bin/sh" : `#!/bin/sh -${options}`;
    return `${first}\n${program.replaceAll("%%", "%").replaceAll("$$", "$")}\n`;
  });

/** Runs ShellCheck, which prints what it finds. @param input the program of a unit, where the arguments name no file */
function shellCheck(args: readonly string[], input = ""): void {
  const { status, error } = spawnSync("shellcheck", args, { cwd: root, input, stdio: ["pipe", "inherit", "inherit"] });
  if (error !== undefined) throw error;
  if (status !== 0) process.exitCode = 1;
}

shellCheck(files.filter(isScript));
for (const program of files.filter((file) => file.startsWith("systemd/")).flatMap(programsOf))
  shellCheck(["-"], program);
