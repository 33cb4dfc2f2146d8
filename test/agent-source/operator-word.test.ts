/** What `ferry resolve` may do, by what the destination says. */
import t from "tap";
import { checkWord } from "../../agent-source/operator-word.ts";
import type { SourceContext } from "../../agent-source/source-context.ts";
import { serveDestination } from "../../shared/link/grpc-server.ts";
import type { SettleAnswer } from "../../shared/protocol/messages.ts";
import { LIMITS, SERVE } from "../support/link.ts";

const unexpected = (): never => {
  throw new Error("not expected");
};

/** A migration in doubt, whose destination answers like this; undefined: it cannot be asked. */
async function inDoubt(t: { teardown(done: () => unknown): unknown }, standing: SettleAnswer["standing"] | undefined) {
  const asked: string[] = [];
  const settle = async (call: { ask: string }): Promise<SettleAnswer> => {
    asked.push(call.ask);
    return { standing: standing ?? "unknown", reason: "so it is" };
  };
  const listener = await serveDestination({ handshake: unexpected, settle }, SERVE);
  if (standing === undefined) await listener.close(0);
  else t.teardown(() => listener.close(0));
  const parts = { id: "m-1", token: new Uint8Array(16), call: { to: listener.address }, limits: LIMITS };
  // the few parts of a context that the check uses
  const cx = { ...parts, leaving: new AbortController().signal } as unknown as SourceContext;
  return { cx, asked };
}

const CASES = [
  // what the destination says, keep the source, keep the destination
  ["refused", "yes", "not-resolvable"],
  ["running", "not-resolvable", "yes"],
  ["starting", "not-resolvable", "yes"],
  ["waiting", "not-resolvable", "yes"],
  ["lost", "needs-confirmation", "needs-confirmation"],
  ["unknown", "needs-confirmation", "needs-confirmation"],
  [undefined, "needs-confirmation", "needs-confirmation"],
] as const;

for (const [standing, source, destination] of CASES)
  t.test(`a destination that ${standing === undefined ? "cannot be asked" : `says ${standing}`}`, async (t) => {
    const { cx, asked } = await inDoubt(t, standing);
    for (const [keep, expected] of [
      ["source", source],
      ["destination", destination],
    ] as const) {
      if (expected === "yes") await checkWord(cx, keep, false);
      else await t.rejects(checkWord(cx, keep, false), { code: expected }, `keep ${keep}`);
      if (expected === "needs-confirmation") await checkWord(cx, keep, true);
      if (expected === "not-resolvable")
        await t.rejects(checkWord(cx, keep, true), { code: expected }, "no word counts against the destination's");
    }
    if (standing !== undefined) t.same([...new Set(asked)], ["withdraw", "standing"]);
  });
