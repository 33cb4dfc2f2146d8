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

t.test("the words of a fault are bounded, whoever has made them up", async (t) => {
  const long = "x".repeat(1 << 20);
  const { message, advice, guestNow } = new MigrationFault("busy", long, { advice: long, guestNow: long });
  for (const text of [message, advice, guestNow]) t.equal(text, `${"x".repeat(5999)}…`);
  const kept = new MigrationFault("busy", "short", { advice: "do", guestNow: "it runs" });
  t.match(kept, { message: "short", advice: "do", guestNow: "it runs" });
});

t.test("reasons that are too many or too long are cut, and their number is said", async (t) => {
  const reasons = (number: number, characters: number) =>
    Array.from({ length: number }, () => ({ code: "machine-type", message: "x".repeat(characters) }));
  t.same(new MigrationFault("refused", "no", { refusals: reasons(20, 240) }).refusals, reasons(20, 240));
  const told = new MigrationFault("refused", "no", { refusals: reasons(64, 2000) }).refusals;
  t.same(told, [
    ...reasons(2, 2000),
    { code: "more", message: "62 more reasons are left out, since the list is too long" },
  ]);
  t.equal(new MigrationFault("refused", "no", { refusals: reasons(100_000, 0) }).refusals.length, 101);
});
