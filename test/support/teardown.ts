/**
 * What must be undone however the test program ends. The steps are synchronous, since nothing else runs at a process's
 * exit; the rig closes itself properly before, and takes its step back.
 */

type Step = () => void;

// SIGALRM is how tap ends a test that takes too long.
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGALRM"] as const;
const steps = new Set<Step>();
let installed = false;

/** Runs `step` at the program's end, unless it is taken back by the function that is returned. */
export function atTeardown(step: Step): () => void {
  install();
  steps.add(step);
  return () => {
    steps.delete(step);
  };
}

function install(): void {
  if (installed) return;
  installed = true;
  process.once("exit", runAll);
  for (const signal of SIGNALS)
    process.once(signal, () => {
      runAll();
      // The listener is gone by now: this ends the program as the signal would have.
      process.kill(process.pid, signal);
    });
}

/** Last first, since later things stand on earlier ones. */
function runAll(): void {
  for (const step of [...steps].reverse()) {
    steps.delete(step);
    try {
      step();
    } catch (thrown) {
      process.stderr.write(`teardown: ${String(thrown)}\n`);
    }
  }
}
