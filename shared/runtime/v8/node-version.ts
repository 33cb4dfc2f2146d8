/** The Node that Ferry runs on. */

/** As `engines` of package.json has it; why this one: docs/decisions/0050-one-supported-node.md. */
export const OLDEST_NODE = 22;

/** @returns what to say of this Node, or nothing where it is new enough. @param version "22.23.5" */
export function whyNodeIsTooOld(version: string, program: string): string | undefined {
  if (Number.parseInt(version, 10) >= OLDEST_NODE) return undefined;
  return (
    `Ferry needs Node ${OLDEST_NODE} or later, and ${program} is Node ${version}: ` +
    "nothing was started, asked or changed\n" +
    'Install a newer Node for the whole host (docs/operations.md, "Node on a host"), then do the same again\n'
  );
}
