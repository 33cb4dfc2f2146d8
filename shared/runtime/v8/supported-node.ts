/**
 * Each program imports this first: under a Node that is too old it ends at once and says so, before any other module
 * runs. An old Node gets no security updates, and nobody has tried Ferry on it.
 */
import { whyNodeIsTooOld } from "./node-version.ts";

/** The exit code of all three programs, and of `ferry may-start` where it could not look (docs/operations.md). */
const TOO_OLD_EXIT = 255;

const why = whyNodeIsTooOld(process.versions.node, process.execPath);
if (why !== undefined) {
  process.stderr.write(why);
  process.exit(TOO_OLD_EXIT);
}
