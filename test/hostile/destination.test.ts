/**
 * A source that was taken over plays each wrong message in each state of a destination. The destination agent is real,
 * and its QEMU is the test's.
 */
import t from "tap";
import { DESTINATION_STATES, type DestinationStateName } from "../../shared/protocol/destination-states.ts";
import { eventually } from "../support/bounded.ts";
import { POSTCOPY, startAgain } from "../support/destination-again.ts";
import { comeToAnEnd, INTO } from "./destination-states.ts";
import { type Fate, SOURCE_TABLE, type StreamState } from "./destination-table.ts";
import { type Attack, AttackedDestination } from "./hostile-source.ts";
import { checkMemory, memoryInUse } from "./memory-in-use.ts";
import { SOURCE_FORMS, type SourceForm } from "./source-forms.ts";

const FILE_MS = 600_000;
t.setTimeout(FILE_MS);

const WITHIN = { timeoutMs: 30_000 };
const states = Object.entries(SOURCE_TABLE) as [StreamState, Readonly<Record<SourceForm, Fate>>][];
const forms = Object.keys(SOURCE_FORMS) as SourceForm[];

/**
 * The states in which all forms are played. In the others one form of each kind is played, or all forms with
 * FERRY_HOSTILE_ALL=1.
 */
const IN_ALL: readonly StreamState[] = ["receiving"];
const kinds = new Set(Object.values(SOURCE_FORMS).map(({ kind }) => kind));
const oneOfEachKind = [...kinds].flatMap((kind) => forms.find((form) => SOURCE_FORMS[form].kind === kind) ?? []);

/** Finds the steps that were logged and that the table of states does not have. */
function wrongSteps(attack: Attack): readonly string[] {
  const edges: Readonly<Record<string, object>> = DESTINATION_STATES;
  return attack.states.flatMap((state, at) => {
    const before = attack.states[at - 1];
    if (before === undefined) return state in edges ? [] : [`to ${state}`];
    return Object.values(edges[before] ?? {}).includes(state) ? [] : [`${before} to ${state}`];
  });
}

/** How often the guest was started. */
const starts = (on: AttackedDestination): number => on.qemu.said.filter((one) => one === "cont").length;

/** Plays a form in a state. @returns what is wrong with what became of the migration; undefined when nothing is */
async function play(attack: Attack, state: StreamState, form: SourceForm, fate: Fate): Promise<string | undefined> {
  const { on } = attack;
  const before = starts(on);
  await INTO[state](attack);
  attack.send(...SOURCE_FORMS[form].make(attack));
  // where the table says "ends", the migration must end by itself
  if (fate === "ends") {
    if (state === "loading")
      await eventually(() => on.hasFailed(attack.id) || undefined, { ...WITHIN, what: "the fault" });
    on.holds.release();
    await on.log.until(attack.id, "discarding", "withheld");
  } else if (fate === "holds" && (state === "receiving" || state === "loaded")) {
    // it is not known whether the stream is still read, so the guest is granted by a call
    if (state === "receiving") {
      await attack.answered();
      attack.finish();
      await attack.hears("loaded");
    }
    const { standing } = await attack.settle("grant");
    if (standing !== "running") return `the grant is answered by ${standing}`;
    await on.log.until(attack.id, "arrived");
  }
  const views = await on.operator.listMigrations();
  if (!views.some(({ id }) => id === attack.id)) return "the operator's list does not have it";
  const mayRun = fate === "holds" && !["refusing", "withheld"].includes(state);
  const last = await comeToAnEnd(attack, on);
  const wrong = wrongSteps(attack);
  if (wrong.length > 0) return `steps that the table does not have: ${wrong.join(", ")}`;
  if (!mayRun && starts(on) > before) return "the guest was started";
  if (last === "doubled") return "doubled";
  await eventually(() => (on.qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of its QEMU" });
  return undefined;
}

t.test("whatever a source says in whichever state, its migration holds or ends as the table says", async (t) => {
  const before = memoryInUse();
  const on = await AttackedDestination.open(t);
  const only = process.env.HOSTILE_ONLY;
  for (const [state, row] of states) {
    const began = performance.now();
    const wrong: string[] = [];
    const played = IN_ALL.includes(state) || process.env.FERRY_HOSTILE_ALL !== undefined ? forms : oneOfEachKind;
    for (const form of played) {
      if (only !== undefined && !`${state} ${form}`.includes(only)) continue;
      const attack = on.next();
      const found = await play(attack, state, form, row[form]).catch((thrown: unknown) => String(thrown));
      if (found === undefined) continue;
      wrong.push(`${form}: ${found.slice(0, 200)}`);
      if (process.env.HOSTILE_SHOW !== undefined) t.comment(found);
      await comeToAnEnd(attack, on).catch(() => undefined);
    }
    t.same(wrong, [], `${state}: ${played.length} forms in ${Math.round(performance.now() - began)} ms`);
  }
  await checkMemory(t, before);
  t.ok(on.log.longest < 20_000, `the longest line of the log has ${on.log.longest} characters`);
});

/** What a source that was taken over asks by calls; none of it may change how a migration stands. */
const QUESTIONS = {
  standing: (attack: Attack) => attack.settle("standing"),
  strangersGrant: (attack: Attack) => attack.settle("grant", { token: Buffer.alloc(16, 1) }),
  strangersWithdrawal: (attack: Attack) => attack.settle("withdraw", { token: Buffer.alloc(64, 1) }),
  strangersKept: (attack: Attack) => attack.settle("kept", { token: Buffer.alloc(1, 1) }),
  grantOfAnotherEpoch: (attack: Attack) => attack.settle("grant", { epoch: Number.MAX_SAFE_INTEGER }),
  grantOfAnother: (attack: Attack) => attack.settle("grant", { migrationId: "nobody" }),
  handshakeAgain: (attack: Attack) => attack.handshake(),
  handshakeOfTheGuest: (attack: Attack) => attack.handshake({ migrationId: "another", token: Buffer.alloc(16, 9) }),
} as const;

t.test("questions of strangers and handshakes change nothing in any state", async (t) => {
  const on = await AttackedDestination.open(t);
  for (const state of Object.keys(INTO) as (keyof typeof INTO)[]) {
    const attack = on.next();
    const began = performance.now();
    await INTO[state](attack);
    const [seen, said] = [[...attack.states], on.qemu.said.length];
    // where the guest is not at the destination any more a handshake is as good as any other, and a refused copy makes
    // way for it
    const givesWay = ["discarded", "lost", "withheld", "refusing", "discarding"].includes(state);
    for (const [name, ask] of Object.entries(QUESTIONS)) {
      if (givesWay && name === "handshakeOfTheGuest") continue;
      // the guest was never whole here, so there is no record, and the source may offer the migration again
      if (state === "discarded" && name === "handshakeAgain") continue;
      await ask(attack).catch((thrown: unknown) => thrown);
    }
    t.same(attack.states, seen, state);
    t.equal(on.qemu.said.length, said, `${state}: nothing was said to its QEMU`);
    await on.operator.listMigrations();
    await comeToAnEnd(attack, on);
    // an agent that did not leave the stream of a migration that has ended would dial its source for ever
    if (state === "doubled") await attack.left();
    t.same(wrongSteps(attack), [], `${state}, in ${Math.round(performance.now() - began)} ms`);
  }
});

t.test("in post-copy no call of the source ends the guest or starts it again", async (t) => {
  const came = { kind: "running", status: "running", migration: "postcopy-active", postcopy: POSTCOPY } as const;
  const { settle, qemu } = await startAgain(t, came);
  for (const ask of ["standing", "grant", "withdraw", "kept"] as const)
    t.match(await settle(ask), { standing: /^(pulling|starting|waiting)$/ }, ask);
  t.match(await settle("kept", { token: Buffer.alloc(16) }), { standing: "unknown" });
  t.ok(qemu.isAlive);
  t.notOk(qemu.said.includes("cont") || qemu.said.includes("quit"));
});

t.test("every state is played, with messages or with calls", async (t) => {
  const played = new Set<DestinationStateName>([...(Object.keys(INTO) as DestinationStateName[]), "pulling"]);
  t.same(
    Object.keys(DESTINATION_STATES).filter((one) => !played.has(one as DestinationStateName)),
    [],
  );
});
