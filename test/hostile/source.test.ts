/**
 * A destination that was taken over plays each wrong message in each state of a source. The source agent is real, and
 * so is the QEMU of its guest.
 */
import t from "tap";
import { SOURCE_STATES } from "../../shared/protocol/source-states.ts";
import type { DestinationMessage, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { setSteps } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { DESTINATION_FORMS, type DestinationForm } from "./destination-forms.ts";
import { AttackedSource, Raid, SETS } from "./hostile-destination.ts";
import { checkMemory, memoryInUse } from "./memory-in-use.ts";
import { DESTINATION_TABLE, type Fate, type StreamlessState, type StreamState } from "./source-table.ts";

t.setTimeout(600_000);

const WITHIN = { timeoutMs: 40_000 };
/** The rate of a QEMU that sends one page in each turn of its loop, which lasts 100 ms. */
const SLOW_BYTES_PER_SECOND = 4096;
/**
 * How much QEMU must have left to send: four pages, which then last for 400 ms. The agent stops the guest after 55 ms.
 */
const LEFT_BYTES = 4 * 4096;
const states = Object.entries(DESTINATION_TABLE) as [StreamState, Readonly<Record<DestinationForm, Fate>>][];
const forms = Object.keys(DESTINATION_FORMS) as DestinationForm[];
/**
 * The states in which all forms are played. In the others one form of each kind is played, or all forms with
 * FERRY_HOSTILE_ALL=1.
 */
const IN_ALL: readonly StreamState[] = ["copying"];
const kinds = new Set(Object.values(DESTINATION_FORMS).map(({ kind }) => kind));
const oneOfEachKind = [...kinds].flatMap((kind) => forms.find((form) => DESTINATION_FORMS[form].kind === kind) ?? []);

/** The kinds of messages that the source does not count (ResumingSource.counts). A wrong one is seen at once. */
const OF_THE_MOMENT: readonly DestinationMessage["kind"][] = ["ack", "clockReply", "hello"];

/** Calls `wrong` once, when the first message of this kind comes and before it is answered honestly. */
function atFirst(raid: Raid, kind: SourceMessage["kind"], wrong: () => void): void {
  let played = false;
  raid.instead = (message) => {
    if (message.kind !== kind || played) return false;
    played = true;
    wrong();
    return kind === "grant";
  };
}

/** Leads the source to a state by an honest way, and says what is wrong there. */
async function attack(
  on: AttackedSource,
  raid: Raid,
  state: StreamState,
  said: readonly DestinationForm[],
): Promise<void> {
  const wrong = (): void => {
    for (const form of said) raid.say(...DESTINATION_FORMS[form].make(raid));
  };
  switch (state) {
    case "staging":
      atFirst(raid, "clockPing", wrong);
      await on.begin(raid, "stop-and-copy");
      return;
    case "granting":
      atFirst(raid, "grant", wrong);
      await on.begin(raid, "stop-and-copy");
      await raid.hears("grant");
      return;
    case "serving":
      await intoPostcopy(on, raid);
      await on.log.until(raid.id, "serving");
      wrong();
      return;
    default: {
      on.holds.hold(state);
      await on.begin(raid, "stop-and-copy");
      await on.holds.isHeld();
      const counted = raid.counted;
      const more = said.filter((form) => !OF_THE_MOMENT.includes(DESTINATION_FORMS[form].kind)).length;
      wrong();
      // clock replies that nobody asked for count for nothing, and need not be waited for
      const until =
        more === 0 && said.every((form) => DESTINATION_FORMS[form].kind === "clockReply")
          ? 0
          : counted + Math.max(1, more);
      await eventually(() => on.hasTaken(raid, until) || undefined, { ...WITHIN, what: `${said} in ${state}` });
      on.holds.release();
    }
  }
}

/**
 * Leads the source into post-copy. Where QEMU has sent all pages by the time that it looks, there is no post-copy, and
 * another migration is tried. QEMU is made so slow that this is rare: this guest writes so few pages that QEMU would
 * otherwise have sent them all, except once in a hundred tries.
 */
async function intoPostcopy(on: AttackedSource, raid: Raid): Promise<void> {
  while (!raid.isPostcopy) {
    raid.again();
    atFirst(raid, "grant", () => (raid.isPostcopy ? raid.sayRunning() : raid.refuse()));
    on.holds.hold("switching");
    await on.begin(raid, "postcopy");
    await on.holds.isHeld();
    await on.qmp.execute("migrate-set-parameters", { "max-bandwidth": SLOW_BYTES_PER_SECOND });
    const hasPages = async (): Promise<true | undefined> =>
      ((await on.qmp.execute("query-migrate")).ram?.remaining ?? 0) >= LEFT_BYTES || undefined;
    await eventually(hasPages, { ...WITHIN, what: "pages that QEMU has still to send" });
    on.holds.release();
    await raid.hears("grant");
    if (!raid.isPostcopy) await on.end(raid);
  }
}

/** Plays forms in a state. @returns what is wrong with what became of the migration; undefined when nothing is */
async function play(
  on: AttackedSource,
  state: StreamState,
  said: readonly DestinationForm[],
  fate: Fate,
): Promise<string | undefined> {
  const raid = new Raid();
  await attack(on, raid, state, said);
  if (fate === "holds") await raid.hears("grant");
  // the proof of the refusal goes by the way that the source still hears
  if (state === "serving") raid.vanish();
  else if (fate !== "ends") raid.refuse();
  const { status, error } = await on.end(raid);
  raid.channel?.close();
  const seen = on.log.states(raid.id);
  if (status !== "failed") return `it is ${status}: ${seen.join(" ")}`;
  if (!/source/.test(error?.guestNow ?? "")) return `the operator is told: ${error?.guestNow}`;
  if (fate === "ends" && seen.includes("granting")) return `it was granted: ${seen.join(" ")}`;
  const { status: qemu } = await on.qmp.execute("query-status");
  if (qemu !== "running") return `the guest is ${qemu}`;
  await on.operator.listMigrations();
  return wrongStep(seen);
}

function wrongStep(seen: readonly string[]): string | undefined {
  const edges: Readonly<Record<string, object>> = SOURCE_STATES;
  const at = seen.findIndex(
    (one, index) => index > 0 && !Object.values(edges[seen[index - 1] ?? ""] ?? {}).includes(one),
  );
  return at < 0 ? undefined : `a step that the table does not have: ${seen[at - 1]} to ${seen[at]}`;
}

t.test(
  "whatever a destination says in whichever state, the guest goes on at its source as the table says",
  async (t) => {
    const on = await AttackedSource.open(t);
    const before = memoryInUse();
    const only = process.env.HOSTILE_ONLY;
    for (const [state, row] of states) {
      const began = performance.now();
      const wrong: string[] = [];
      const played = IN_ALL.includes(state) || process.env.FERRY_HOSTILE_ALL !== undefined ? forms : oneOfEachKind;
      // the forms that hold are played in one migration
      const holding = forms.filter((form) => row[form] === "holds");
      const cells = [
        holding,
        ...played.filter((form) => row[form] === "ends" || row[form] === "asks").map((form) => [form]),
      ];
      for (const said of cells) {
        const [first] = said;
        if (first === undefined || (only !== undefined && !`${state} ${said}`.includes(only))) continue;
        if (process.env.HOSTILE_SHOW !== undefined) console.error(`${state} ${said}`);
        const found = await play(on, state, said, row[first]).catch((thrown: unknown) => String(thrown));
        on.holds.release();
        if (found === undefined) continue;
        wrong.push(`${said}: ${found.slice(0, 300)}`);
        if (process.env.HOSTILE_SHOW !== undefined) console.error(found, on.log.lines.slice(-25).join(""));
        // the next migration begins with a guest that has none
        on.last?.refuse();
        on.last?.vanish();
        if (on.last !== undefined) await on.end(on.last).catch(() => undefined);
      }
      t.same(wrong, [], `${state}: ${cells.length} migrations in ${Math.round(performance.now() - began)} ms`);
    }
    await checkMemory(t, before);
    t.ok(on.log.longest < 20_000, `the longest line of the log has ${on.log.longest} characters`);
    await on.qmp.execute("stop");
    const { most, counters } = await setSteps(on.guest, SETS);
    t.ok(most <= 1, `the guest has gone on through its memory in order: ${counters}`);
  },
);

t.test("every state is played, or has no stream", async (t) => {
  const streamless: Readonly<Record<StreamlessState, true>> = {
    planned: true,
    negotiating: true,
    inDoubt: true,
    releasing: true,
    keeping: true,
    withdrawing: true,
    orphaned: true,
    doubled: true,
    released: true,
    kept: true,
    stranded: true,
  };
  const known = [...Object.keys(DESTINATION_TABLE), ...Object.keys(streamless)].sort();
  t.same(known, Object.keys(SOURCE_STATES).sort());
});
