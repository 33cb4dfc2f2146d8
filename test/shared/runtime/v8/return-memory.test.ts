/** Tests when the memory of migrations that have ended is given back, and who waits for that. */
import t from "tap";
import { memoryReturned, returnMemoryLater } from "../../../../shared/runtime/v8/return-memory.ts";
import { eventually } from "../../../support/bounded.ts";

// this keeps the program alive, as an agent's port does, since what returns memory does not
const alive = setInterval(() => undefined, 1000);
t.teardown(() => clearInterval(alive));

/** Makes memory like a migration's, to which nothing refers when this function returns. */
function left(): WeakRef<object> {
  const pieces = (16 << 20) / 65536;
  return new WeakRef(new WebAssembly.Memory({ initial: pieces, maximum: pieces, shared: true }));
}

t.test("the memory of a migration that has ended is given back, although another one is under way", async (t) => {
  const memory = left();
  let next = false;
  returnMemoryLater(
    () => false,
    () => {
      next = true;
    },
  );
  await memoryReturned(0);
  t.equal(memory.deref(), undefined);
  t.notOk(next, "what is done when no migration is under way waits for the end of the other one");
});

t.test("a caller does not wait where there is little to wait for", async (t) => {
  let done = false;
  returnMemoryLater(
    () => true,
    () => {
      done = true;
    },
  );
  await memoryReturned(2 ** 40);
  t.notOk(done);
  await eventually(() => done || undefined, {
    timeoutMs: 30_000,
    what: "what is done after the memory was given back",
  });
});
