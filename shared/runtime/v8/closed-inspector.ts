/**
 * Each agent imports this as soon as it can: Node's inspector stays closed unless the agent was started with it.
 * SIGUSR1 opens it to every user of the host, who could then run code in the agent. Node's own switch,
 * --disable-sigusr1, is not in the agents' first lines: a Node that is too old does not know it, and would end on it
 * before it could say that it is too old.
 */
import inspector from "node:inspector";

const given = [...process.execArgv, process.env.NODE_OPTIONS ?? ""].join(" ");
const isAskedFor = /(?:^|\s)--inspect(?:-brk|-wait)?(?:[\s=]|$)/.test(given);

function close(): void {
  if (inspector.url() !== undefined) inspector.close();
}

// a listener in place of Node's own; what is to be said of the signal says run-agent.ts
process.on("SIGUSR1", () => undefined);
// a signal that came while Node was reading the modules
if (!isAskedFor) {
  close();
  // Node opens it from two places, whichever comes first (src/inspector_agent.cc, RequestIoThreadStart): the other one
  // comes in the next turn of the event loop, and would open it again
  await new Promise((resolve) => setImmediate(resolve));
  close();
}
