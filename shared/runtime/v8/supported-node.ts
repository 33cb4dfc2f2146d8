/**
 * Ends the program at once under a Node that is too old, and says so. Each program imports this module first, before
 * any other module runs. An old Node gets no security updates, and nobody has tried Ferry on it.
 */
import { whyNodeIsTooOld } from "./node-version.ts";

/**
 * The exit code of all three programs under a Node that is too old. `ferry may-start` also exits with this code when it
 * cannot find out whether the guest may start (docs/operations.md).
 */
const TOO_OLD_EXIT = 255;

const why = whyNodeIsTooOld(process.versions.node, process.execPath);
if (why !== undefined) {
  process.stderr.write(why);
  process.exit(TOO_OLD_EXIT);
}
