/**
 * Tests what `ferry resolve` may do at a source, by the state that asks for a word and by what the destination says.
 */
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import t, { type Test } from "tap";
import { type Asker, OperatorWords } from "../../../agent-source/migration/operator-words.ts";
import type { SourceContext } from "../../../agent-source/migration/source-context.ts";
import { checkResolution } from "../../../agent-source/service/check-resolution.ts";
import { DECIDES_WITHIN_MS, type SettleAnswer, TAKES_UP_WITHIN_MS } from "../../../shared/protocol/stream-messages.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { AskedDestination, LIMITS } from "../../support/asked-destination.ts";

type Standing = SettleAnswer["standing"];

/**
 * Makes a migration that waits for a word and whose destination answers so; undefined means that it cannot be asked.
 */
async function waiting(t: Test, asker: Asker | undefined, standing: Standing | undefined) {
  const destination = await AskedDestination.serve(t);
  destination.answersInTurn([standing ?? "unknown"]);
  if (standing === undefined) await destination.close();
  const words = new OperatorWords();
  if (asker !== undefined) void words.ask(asker);
  const parts = { id: "m-1", token: new Uint8Array(16), call: { to: destination.address }, limits: LIMITS, words };
  // the parts of a context that the check uses
  const cx = { ...parts, leaving: new AbortController().signal } as unknown as SourceContext;
  return { cx, destination };
}

/** What becomes of a word without `--yes`, and with it. */
type Verdict =
  /** The word is taken at once. */
  | "yes"
  /** The word is taken with `--yes`. */
  | "confirm"
  /** The word is not taken: the destination says otherwise, or its agent has to take the word. */
  | "no";

const CASES: readonly (readonly [Standing | undefined, Record<Asker, readonly [source: Verdict, there: Verdict]>])[] = [
  ["refused", { inDoubt: ["yes", "no"], orphaned: ["confirm", "no"], doubled: ["confirm", "confirm"] }],
  ["running", { inDoubt: ["no", "yes"], orphaned: ["no", "no"], doubled: ["no", "confirm"] }],
  ["pulling", { inDoubt: ["no", "yes"], orphaned: ["no", "no"], doubled: ["no", "no"] }],
  ["starting", { inDoubt: ["no", "confirm"], orphaned: ["no", "no"], doubled: ["no", "confirm"] }],
  ["waiting", { inDoubt: ["confirm", "no"], orphaned: ["no", "no"], doubled: ["no", "confirm"] }],
  ["lost", { inDoubt: ["confirm", "confirm"], orphaned: ["confirm", "no"], doubled: ["confirm", "confirm"] }],
  ["unknown", { inDoubt: ["confirm", "confirm"], orphaned: ["confirm", "no"], doubled: ["confirm", "confirm"] }],
  [undefined, { inDoubt: ["confirm", "confirm"], orphaned: ["confirm", "no"], doubled: ["confirm", "confirm"] }],
];

async function verdictOf(cx: SourceContext, keep: "source" | "destination"): Promise<Verdict> {
  const said = async (confirmed: boolean): Promise<string> =>
    checkResolution(cx, keep, confirmed).then(
      () => "taken",
      ({ code }: { code: string }) => code,
    );
  const [first, second] = [await said(false), await said(true)];
  if (first === "taken" && second === "taken") return "yes";
  if (first === "needs-confirmation" && second === "taken") return "confirm";
  if (first === "not-resolvable" && second === "not-resolvable") return "no";
  throw new Error(`${first}, then ${second}`);
}

for (const [standing, byAsker] of CASES)
  t.test(
    `a doubt takes only safe words if its destination ${standing === undefined ? "is silent" : `says ${standing}`}`,
    async (t) => {
      for (const asker of ["inDoubt", "orphaned", "doubled"] as const) {
        const { cx, destination } = await waiting(t, asker, standing);
        const [source, there] = byAsker[asker];
        t.equal(await verdictOf(cx, "source"), source, `${asker}, keep source`);
        t.equal(await verdictOf(cx, "destination"), there, `${asker}, keep destination`);
        // only *inDoubt* tells the destination to give the guest up for a word: elsewhere its copy may be the only one
        const questions = standing === undefined ? [] : asker === "inDoubt" ? ["withdraw", "standing"] : ["standing"];
        t.same([...new Set(destination.asked)], questions);
      }
    },
  );

t.test("a word for which no state asks is refused before the destination is asked", async (t) => {
  const { cx, destination } = await waiting(t, undefined, "refused");
  for (const keep of ["source", "destination"] as const)
    await t.rejects(checkResolution(cx, keep, true), { code: "not-in-doubt" });
  t.same(destination.asked, []);
});

/** The milliseconds of a gRPC time-out such as "18S" or "17999m". */
function millisecondsOf(timeout: string): number {
  const units: Readonly<Record<string, number>> = { S: 1000, m: 1, u: 1e-3 };
  return Number(timeout.slice(0, -1)) * (units[timeout.slice(-1)] ?? Number.NaN);
}

t.test("a destination that answers late does not count as one that cannot be asked", async (t) => {
  const asked = deferred<string>();
  const server = createServer().on("stream", (stream, headers) => {
    asked.resolve(String(headers["grpc-timeout"]));
    stream.close();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => server.close());
  const { cx } = await waiting(t, "inDoubt", "starting");
  const { port } = server.address() as AddressInfo;
  const word = checkResolution({ ...cx, call: { ...cx.call, to: `127.0.0.1:${port}` } }, "source", false);
  // a destination that has just started again looks for its QEMU, and then waits for its own decision
  t.ok(millisecondsOf(await asked.promise) > TAKES_UP_WITHIN_MS + DECIDES_WITHIN_MS, "it is waited for for longer");
  await t.rejects(word, { code: "needs-confirmation" });
});

t.test(
  "a word for the source is not taken while the destination looks for its QEMU, and the fault says so",
  async (t) => {
    const { cx, destination } = await waiting(t, "inDoubt", "starting");
    destination.answer = () => ({ standing: "starting", reason: "its QEMU cannot be looked at yet" });
    await t.rejects(checkResolution(cx, "source", true), {
      code: "not-resolvable",
      message: /may run there already \(its QEMU cannot be looked at yet\)/,
      advice: /end it first with ferry --agent .* resolve m-1 --keep source;/,
    });
  },
);
