/** Tests what a fault keeps in memory while the fault itself is kept. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import t from "tap";
import { MigrationFault } from "../../shared/fault.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** Stands for a migration, of which hundreds of megabytes hang on one such object. */
class Large {
  readonly bytes = new Uint8Array(1 << 20);

  makeFault(cause?: Error): MigrationFault {
    return new MigrationFault("busy", `${this.bytes.length} bytes`, cause === undefined ? {} : { cause });
  }

  makeError(): Error {
    return new Error(`${this.bytes.length} bytes`);
  }
}

function kept(make: (large: Large) => MigrationFault): { fault: MigrationFault; large: WeakRef<Large> } {
  const large = new Large();
  return { fault: make(large), large: new WeakRef(large) };
}

t.test("a fault that is kept keeps nothing of what made it", async (t) => {
  const made = [kept((large) => large.makeFault()), kept((large) => new Large().makeFault(large.makeError()))];
  // an object that was read through a WeakRef lives until the end of that turn of the event loop
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  t.same(
    made.map(({ large }) => large.deref()),
    [undefined, undefined],
  );
  t.match(made[0]?.fault.stack, /Large\.makeFault/, "the stack can be read all the same");
});
