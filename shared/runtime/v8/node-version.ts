/** Says which version of Node Ferry needs, and tells whether a Node is too old. */

/**
 * The oldest major version of Node for Ferry, as in `engines` of package.json
 * (docs/decisions/0050-run-by-node-22-and-bring-it.md).
 */
export const OLDEST_NODE = 22;

/**
 * Checks a version of Node.
 * @param version such as "22.23.5"
 * @param program the path of this Node, for the text
 * @returns the text for the user of a Node that is too old; undefined where it is new enough
 */
export function whyNodeIsTooOld(version: string, program: string): string | undefined {
  if (Number.parseInt(version, 10) >= OLDEST_NODE) return undefined;
  return (
    `Ferry needs Node ${OLDEST_NODE} or later, and ${program} is Node ${version}: ` +
    "nothing was started, asked or changed\n" +
    'Install a newer Node for the whole host (docs/operations.md, "Node on a host"), then do the same again\n'
  );
}
