/** Tests which record of a host decides about a start, and what each record says about it. */
import t from "tap";
import { type LatestRecord, latestRecordOf, mayStart, processOf } from "../../../shared/protocol/may-start.ts";
import type { DestinationRecord, SourceRecord } from "../../../shared/protocol/ownership.ts";

const grant = { token: "00", epoch: 1, paused: false };
const BOOT = "boot-1";
const qemu = (pid: number, ticks: number, boot = BOOT) => ({ pid, identity: `${boot}/${pid}/${ticks}` });

const source = (changes: Partial<SourceRecord> = {}): SourceRecord => ({
  kind: "kept",
  guest: "web",
  destination: "beta:7412",
  sequence: 10,
  startedAtMs: 10,
  grant,
  ...changes,
});

const destination = (changes: Partial<DestinationRecord> = {}): DestinationRecord => ({
  kind: "arrived",
  guest: "web",
  source: "gamma:7411",
  sequence: 10,
  startedAtMs: 10,
  grant,
  ...changes,
});

const left = (record: SourceRecord): LatestRecord => ({ side: "source", id: "m-s", record });
const came = (record: DestinationRecord): LatestRecord => ({ side: "destination", id: "m-d", record });

/** Finds the id of the record that has the last word about the guest web, when the journals have these records. */
const last = (sources: readonly SourceRecord[], destinations: readonly DestinationRecord[]): string | undefined => {
  const word = latestRecordOf(
    "web",
    sources.map((record, index) => ({ id: `s${index}`, record })),
    destinations.map((record, index) => ({ id: `d${index}`, record })),
  );
  return word?.id;
};

const rows: readonly (readonly [
  title: string,
  word: LatestRecord | undefined,
  lives: boolean,
  may: boolean,
  passing: boolean,
  because: RegExp,
])[] = [
  ["no record", undefined, false, true, false, /^no journal of this host knows/],
  ["a plan", left(source({ kind: "plan" })), true, false, true, /^migration m-s of it to beta:7412 is under way/],
  ["a plan whose QEMU has ended", left(source({ kind: "plan" })), false, false, true, /has not settled it yet$/],
  ["a grant", left(source({ kind: "granted" })), true, false, true, /has granted it to beta:7412/],
  ["a grant whose QEMU has ended", left(source({ kind: "granted" })), false, false, true, /is not settled$/],
  ["a guest that left", left(source({ kind: "released" })), false, false, false, /^migration m-s has moved it to beta/],
  [
    "a guest that left, whose QEMU is still there",
    left(source({ kind: "released" })),
    true,
    false,
    false,
    /has moved it to beta:7412$/,
  ],
  [
    "a guest that stayed",
    left(source({ qemu: qemu(7, 1) })),
    true,
    false,
    false,
    /^its QEMU is there already, as process 7$/,
  ],
  ["a guest that stayed and has ended", left(source()), false, true, false, /^migration m-s to beta:7412 has kept it/],
  [
    "a guest that stayed, which its destination was not told",
    left(source({ untold: true })),
    false,
    true,
    false,
    /has kept it on this host$/,
  ],
  [
    "a guest that somebody started",
    came(destination({ ungranted: true })),
    false,
    false,
    false,
    /^somebody started it here, and gamma:7411 has not granted it/,
  ],
  [
    "a guest that is coming",
    came(destination({ kind: "waiting" })),
    true,
    false,
    true,
    /^migration m-d is bringing it from gamma/,
  ],
  [
    "a guest that was coming, whose QEMU has ended",
    came(destination({ kind: "waiting" })),
    false,
    false,
    true,
    /is bringing it from gamma:7411$/,
  ],
  [
    "a guest that is being started",
    came(destination({ kind: "running" })),
    true,
    false,
    true,
    /from gamma:7411 is starting it here$/,
  ],
  [
    "a guest that was started and has ended",
    came(destination({ kind: "running" })),
    false,
    false,
    false,
    /may have taken it back$/,
  ],
  [
    "a guest that arrived",
    came(destination({ qemu: qemu(8, 1) })),
    true,
    false,
    false,
    /is there already, as process 8$/,
  ],
  [
    "a guest that arrived and has ended",
    came(destination()),
    false,
    true,
    false,
    /^migration m-d from gamma:7411 has brought it/,
  ],
  [
    "a refusal",
    came(destination({ kind: "refused" })),
    false,
    false,
    false,
    /was refused here, so it belongs to gamma:7411$/,
  ],
  [
    "a refusal whose copy is still there",
    came(destination({ kind: "refused" })),
    true,
    false,
    false,
    /was refused here/,
  ],
  [
    "an old record",
    came(destination({ kind: "refused", source: "" })),
    false,
    false,
    false,
    /belongs to another host$/,
  ],
];

for (const [title, word, lives, may, passing, because] of rows)
  t.test(`${title}: the guest ${may ? "may" : "may not"} start`, async (t) => {
    const verdict = mayStart(word, lives);
    t.match(verdict, { may, passing });
    t.match(verdict.because, because);
    t.notMatch(verdict.because, /\.$|\n/);
  });

t.test("the process to look for is the one that the last record names", async (t) => {
  t.same(processOf(left(source({ qemu: qemu(7, 1) }))), qemu(7, 1));
  t.equal(processOf(came(destination())), undefined);
});

t.test("only records of the guest count", async (t) => {
  t.equal(last([], []), undefined);
  t.equal(last([source({ guest: "db" })], [destination({ guest: "db" })]), undefined);
  t.equal(last([source(), source({ guest: "db", sequence: 99 })], []), "s0");
  t.equal(last([], [destination({ guest: "db", sequence: 99 }), destination()]), "d1");
});

t.test("within a journal the larger sequence is the later record, whatever the clock says", async (t) => {
  t.equal(last([source({ sequence: 11, startedAtMs: 1 }), source({ sequence: 10, startedAtMs: 99 })], []), "s0");
  t.equal(last([], [destination({ sequence: 10 }), destination({ sequence: 11 })]), "d1");
  const old = { sequence: 0 };
  t.equal(
    last([source({ ...old, startedAtMs: 2 }), source({ ...old, startedAtMs: 1 })], []),
    "s0",
    "without sequences the times of the starts decide",
  );
  t.equal(last([source({ ...old, startedAtMs: 99 }), source({ sequence: 1, startedAtMs: 1 })], []), "s1");
});

t.test("between the journals the larger sequence is the later record, where no process shows the order", async (t) => {
  t.equal(last([source({ sequence: 11 })], [destination({ sequence: 10 })]), "s0");
  t.equal(last([source({ sequence: 10 })], [destination({ sequence: 11 })]), "d0");
  const otherBoot = destination({ sequence: 11, qemu: qemu(8, 1, "boot-0") });
  t.equal(
    last([source({ sequence: 10, qemu: qemu(7, 500) })], [otherBoot]),
    "d0",
    "ticks of two boots are not compared",
  );
});

t.test("a guest that left from the QEMU in which it came has left later, however the clock was set", async (t) => {
  const gone = source({ kind: "released", sequence: 5, qemu: qemu(8, 300) });
  t.equal(last([gone], [destination({ sequence: 90, qemu: qemu(8, 300) })]), "s0");
});

t.test("of two QEMUs of one boot, the one that was started later has the later record", async (t) => {
  const gone = source({ kind: "released", sequence: 5, qemu: qemu(9, 700) });
  t.equal(
    last([gone], [destination({ sequence: 90, qemu: qemu(8, 300) })]),
    "s0",
    "the guest was started again here, and then moved away",
  );
  const back = destination({ sequence: 5, qemu: qemu(9, 700) });
  t.equal(
    last([source({ kind: "released", sequence: 90, qemu: qemu(8, 300) })], [back]),
    "d0",
    "the guest moved away, and came back",
  );
  const atOnce = destination({ sequence: 90, qemu: qemu(9, 300) });
  t.equal(
    last([source({ sequence: 5, qemu: qemu(8, 300) })], [atOnce]),
    "d0",
    "both were started in the same tick, so the sequence decides",
  );
});

t.test("where nothing shows the order, the record that forbids a start counts", async (t) => {
  t.equal(last([source({ kind: "released" })], [destination()]), "s0");
  t.equal(last([source()], [destination({ kind: "waiting" })]), "d0");
});
