/**
 * Tells whether a path leads to something that root or this process's own user made, and that no other user can
 * replace.
 */
import { lstatSync, realpathSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";

const GROUP_OR_OTHERS_WRITE = 0o022;
/** In a directory with this bit, only the owner of the directory or of an entry can remove or rename the entry. */
const STICKY = 0o1000;

/**
 * Looks at the path and each directory above it, and likewise at the path to which symbolic links lead.
 * @returns what is wrong, as the end of a sentence that begins with the path; undefined when nothing is wrong
 */
export function untrustedBecause(path: string): string | undefined {
  let real: string;
  try {
    real = realpathSync(path);
  } catch {
    return path === dirname(path) ? undefined : whoeverMakesIt(dirname(path));
  }
  for (const start of path === real ? [real] : [path, real]) {
    for (let at = start; ; at = dirname(at)) {
      const mistake = mistakeOf(at, lstatSync(at, { throwIfNoEntry: false }), at === start);
      if (mistake !== undefined) return mistake;
      if (at === dirname(at)) break;
    }
  }
  return undefined;
}

/**
 * Checks whether another user could put something at a path at which there is nothing yet, before the path is used.
 * @param directory the directory in which the path is
 * @returns what is wrong, as the end of a sentence that begins with the path; undefined when nothing is wrong
 */
function whoeverMakesIt(directory: string): string | undefined {
  const found = statSync(directory, { throwIfNoEntry: false });
  if (found !== undefined && (found.mode & GROUP_OR_OTHERS_WRITE) !== 0)
    return `is not there, and is in ${directory}, where other users may make it`;
  return untrustedBecause(directory);
}

/**
 * Checks one step of the path.
 * @param at the path itself, or a directory above it
 * @param isEnd true for the path itself, false for a directory above it
 * @returns what is wrong, as the end of a sentence that begins with the path; undefined when nothing is wrong
 */
function mistakeOf(at: string, found: Stats | undefined, isEnd: boolean): string | undefined {
  if (found === undefined) return `has ${at}, which is gone`;
  if (found.uid !== 0 && found.uid !== process.getuid?.()) return `has ${at}, which belongs to user ${found.uid}`;
  const othersMayReplace = (found.mode & GROUP_OR_OTHERS_WRITE) !== 0 && (found.mode & STICKY) === 0;
  if (found.isDirectory() && othersMayReplace && !isEnd) return `is in ${at}, where other users may replace it`;
  return undefined;
}
