/**
 * Runs steps at the end of a test program, however it ends. The steps are synchronous, since nothing else runs at the
 * exit of a process. A rig that was closed properly has taken its step back before.
 */

type Step = () => void;

// tap ends a test that takes too long by SIGALRM
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
      // the listener is gone by now, so this ends the program as the signal would have done
      process.kill(process.pid, signal);
    });
}

/** Runs all steps, the last one first, since later things depend on earlier ones. */
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
