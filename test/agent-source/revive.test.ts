/** When there is nothing left that a post-copy could be taken up from. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { PagesLost, revive } from "../../agent-source/revive.ts";
import type { SourceContext } from "../../agent-source/source-context.ts";
import { ResumingSource } from "../../shared/link/resuming-source.ts";
import { greeting, Monitor, serve } from "../support/fake-monitor.ts";
import { RESUMED_SETUP } from "../support/fake-resumed.ts";
import { folder } from "../support/link-fixtures.ts";

const GREETING = greeting();
const POSTCOPY = { ...RESUMED_SETUP, frameBytes: 65_536, creditWindowBytes: 1 << 20, codecs: [] };

/** @param states the migration and the guest, one after the other as it is asked; undefined: it has ended */
async function reviving(t: Test, states: readonly (readonly [migration: string, guest: string])[] | undefined) {
  const guestsDirectory = folder(t);
  const said: string[] = [];
  let at = 0;
  const qmp =
    states === undefined
      ? join(guestsDirectory, "nobody-listens")
      : await serve(t, (socket) => {
          new Monitor(socket, ({ execute, id }, monitor) => {
            const [status, guest] = states[Math.min(at, states.length - 1)]!;
            if (execute === "query-status") at++;
            else if (execute !== "query-migrate") said.push(execute);
            monitor.reply({ return: execute === "query-status" ? { status: guest, running: false } : { status }, id });
          }).reply(GREETING);
        });
  writeFileSync(join(guestsDirectory, "web.json"), JSON.stringify({ name: "web", qmp, command: ["qemu"] }));
  const config = { guestsDirectory, qmpTimeoutMs: 5000 };
  // all that it looks at until QEMU is parked
  const cx = { id: "m-1", call: { guest: "web" }, config } as unknown as SourceContext;
  const link = new ResumingSource({ patienceMs: 1000, peer: "beta" }, 1);
  return { said, link, revived: revive(cx, POSTCOPY, link) };
}

t.test("with a QEMU that has ended the pages are lost", async (t) => {
  const { revived } = await reviving(t, undefined);
  await t.rejects(revived, { constructor: PagesLost, code: "qemu-failed", message: /has ended/ });
});

t.test(
  "with one that has left its migration, or runs its guest, they are lost, and the destination may dial again",
  async (t) => {
    for (const state of [
      ["completed", "postmigrate"],
      ["none", "paused"],
      ["cancelled", "running"],
    ] as const) {
      const { revived, link, said } = await reviving(t, [state]);
      await t.rejects(revived, { constructor: PagesLost, message: new RegExp(`${state[0]}.*${state[1]}`) });
      t.match(await link.closed, { code: "peer-lost" });
      t.same(said, [], "it is left as it is");
    }
  },
);

t.test("one that has not noticed yet is waited for", async (t) => {
  const { revived } = await reviving(t, [
    ["postcopy-active", "paused"],
    ["postcopy-recover", "paused"],
    ["completed", "paused"],
  ]);
  await t.rejects(revived, { constructor: PagesLost, message: /is completed/ });
});
