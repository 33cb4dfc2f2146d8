/**
 * Keeps Node's inspector closed, unless the agent was started with it. Each agent imports this module as early as it
 * can. SIGUSR1 would open the inspector to every user of the host, who could then run code in the agent. Node's own
 * switch against that, --disable-sigusr1, is not among the options in the first lines of the agents' programs (`#!`): a
 * Node that is too old does not know the switch, and would end on it before the program could say that Node is too old
 * (docs/decisions/0050).
 */
import inspector from "node:inspector";

const given = [...process.execArgv, process.env.NODE_OPTIONS ?? ""].join(" ");
const isAskedFor = /(?:^|\s)--inspect(?:-brk|-wait)?(?:[\s=]|$)/.test(given);

function close(): void {
  if (inspector.url() !== undefined) inspector.close();
}

// this listener takes the place of Node's own; the listener of run-agent.ts logs the signal
process.on("SIGUSR1", () => undefined);
// the signal may have come while Node was reading the modules
if (!isAskedFor) {
  close();
  // Node opens the inspector from two places, whichever comes first (src/inspector_agent.cc, RequestIoThreadStart). The
  // second place comes in the next turn of the event loop, and would open the inspector again
  await new Promise((resolve) => setImmediate(resolve));
  close();
}
