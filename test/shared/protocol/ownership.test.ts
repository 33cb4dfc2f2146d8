/** Tests the rule that keeps a guest single, and how the records of the journals are read. */
import t from "tap";
import {
  DESTINATION_RECORDS,
  destinationMayRun,
  isPassedOver,
  nextSequence,
  SOURCE_RECORDS,
  type SourceRecord,
  sourceMayRun,
} from "../../../shared/protocol/ownership.ts";
import { decodeDestinationRecord, decodeSourceRecord } from "../../../shared/protocol/record-decoding.ts";

const grant = { token: "aa", epoch: 1, paused: false };
const qemu = { pid: 1, identity: "boot/1/2" };
const common = { guest: "web", destination: "beta:7412", sequence: 7, startedAtMs: 1, qemu, grant };
const there = { guest: "web", source: "alpha:7411", sequence: 7, startedAtMs: 1, qemu, grant };

t.test(
  "the source may run its guest unless it has granted it, and then only by proof that this grant was refused",
  async (t) => {
    const granted: SourceRecord = { kind: "granted", ...common };
    t.ok(sourceMayRun(undefined, undefined));
    t.ok(sourceMayRun({ kind: "plan", ...common }, undefined));
    t.ok(sourceMayRun({ kind: "kept", ...common }, undefined));
    t.notOk(sourceMayRun(granted, undefined));
    t.notOk(sourceMayRun(granted, "bb"));
    t.ok(sourceMayRun(granted, "aa"));
    t.notOk(sourceMayRun({ kind: "released", ...common }, "aa"));
  },
);

t.test("the destination runs the guest only by its own grant, which it has not refused", async (t) => {
  const waiting = { kind: "waiting", ...there } as const;
  t.ok(destinationMayRun(waiting, grant, "aa"));
  t.notOk(destinationMayRun(waiting, grant, "bb"), "the token is another migration's");
  t.notOk(destinationMayRun(waiting, { ...grant, epoch: 2 }, "aa"), "the epoch is another one");
  t.notOk(destinationMayRun(undefined, grant, "aa"), "nothing was journalled");
  t.ok(destinationMayRun({ kind: "running", ...there }, grant, "aa"), "the grant is repeated");
  t.notOk(destinationMayRun({ kind: "refused", ...there }, grant, "aa"));
});

t.test("whatever the two journals say about one grant, they never let both hosts run the guest", async (t) => {
  const sources: readonly (SourceRecord | undefined)[] = [
    undefined,
    { kind: "plan", ...common },
    { kind: "granted", ...common },
    { kind: "released", ...common },
    { kind: "kept", ...common },
  ];
  const waiting = { kind: "waiting", ...there } as const;
  const refused = { kind: "refused", ...there } as const;
  const running = { kind: "running", ...there } as const;
  for (const source of sources)
    for (const destination of [undefined, waiting, running, refused]) {
      // a grant is sent only once it was journalled, and a refusal is said only once it was
      const granted = source?.kind === "granted" || source?.kind === "released";
      const mayThere = granted && destinationMayRun(destination, grant, grant.token);
      const here = sourceMayRun(source, destination?.kind === "refused" ? grant.token : undefined);
      t.notOk(here && mayThere, `${source?.kind} and ${destination?.kind}`);
      if (source?.kind === "granted") t.equal(here, destination?.kind === "refused");
    }
});

t.test("records are read as they were written, and a foreign value is no record", async (t) => {
  for (const kind of SOURCE_RECORDS) t.same(decodeSourceRecord({ kind, ...common }), { kind, ...common });
  const settings = { capabilities: { events: true }, parameters: { "downtime-limit": 300 } };
  t.same(decodeSourceRecord({ kind: "plan", ...common, settings }), { kind: "plan", ...common, settings });
  for (const kind of DESTINATION_RECORDS) t.same(decodeDestinationRecord({ kind, ...there }), { kind, ...there });
  const waiting = { kind: "waiting", ...there };
  t.same(decodeDestinationRecord({ ...waiting, more: 1 }), waiting, "an unknown field is left out");
  for (const foreign of [
    undefined,
    null,
    1,
    "plan",
    {},
    { kind: "plan" },
    { kind: "granted", ...common, grant: undefined },
    { kind: "granted", ...common, grant: { token: 1, epoch: 1 } },
    { kind: "granted", ...common, grant: { token: "aa" } },
    { kind: "plan", ...common, startedAtMs: "1" },
    [],
    { ...common, kind: "x" },
  ])
    t.equal(decodeSourceRecord(foreign), undefined, JSON.stringify(foreign));
  for (const foreign of [null, {}, { ...there }, { ...waiting, grant: undefined }, { ...waiting, kind: "x" }])
    t.equal(decodeDestinationRecord(foreign), undefined, JSON.stringify(foreign));
});

t.test("what a post-copy needs to be resumed is in a record as a whole, or not at all", async (t) => {
  const source = { kind: "granted", ...common } as const;
  const postcopy = {
    ramSectionId: 2,
    blocks: [{ name: "pc.ram", byteLength: 8192 }],
    frameBytes: 65536,
    creditWindowBytes: 1 << 20,
    codecs: ["zstd"],
  } as const;
  t.same(decodeSourceRecord({ ...source, postcopy }), { ...source, postcopy });
  const destination = { kind: "running", ...there } as const;
  const pulled = { ...postcopy, sourceAddress: "a:1" };
  t.same(decodeDestinationRecord({ ...destination, postcopy: pulled }), { ...destination, postcopy: pulled });
  t.same(decodeDestinationRecord({ ...destination, postcopy }), destination, "without an address it is left out");
  for (const damaged of [{ ...postcopy, blocks: [{ name: 7 }] }, { ...postcopy, frameBytes: "x" }, [], "x"])
    t.same(decodeSourceRecord({ ...source, postcopy: damaged }), source, JSON.stringify(damaged));
});

t.test("a record of protocol 1 does not mention a pause, since its guest ran", async (t) => {
  const { paused: _, ...old } = grant;
  t.equal(decodeSourceRecord({ kind: "granted", ...common, grant: old })?.grant.paused, false);
  t.equal(decodeDestinationRecord({ kind: "running", ...there, grant: old })?.grant.paused, false);
  for (const paused of [true, false]) {
    const granted = { kind: "granted", ...common, grant: { ...grant, paused } };
    t.same(decodeSourceRecord(JSON.parse(JSON.stringify(granted))), granted);
  }
});

t.test("each note of a record is read where it is set, and nowhere else", async (t) => {
  for (const note of ["retiring", "withdrawn", "untold"] as const) {
    t.same(decodeSourceRecord({ kind: "plan", ...common, [note]: true }), { kind: "plan", ...common, [note]: true });
    for (const other of [false, "true", 1])
      t.same(decodeSourceRecord({ kind: "plan", ...common, [note]: other }), { kind: "plan", ...common });
  }
  for (const note of ["heard", "ungranted"] as const) {
    const refused = { kind: "refused", ...there, reason: "full" };
    t.same(decodeDestinationRecord({ ...refused, [note]: true }), { ...refused, [note]: true });
    t.same(decodeDestinationRecord({ ...refused, [note]: 1 }), refused);
  }
});

t.test("a process without an identity is none, so nothing is said to any QEMU for such a record", async (t) => {
  for (const process of [undefined, {}, { pid: 1 }, { pid: "1", identity: "x" }, { pid: 1, identity: "" }]) {
    t.equal(decodeSourceRecord({ kind: "plan", ...common, qemu: process })?.qemu, undefined);
    t.equal(decodeDestinationRecord({ kind: "waiting", ...there, qemu: process })?.qemu, undefined);
  }
});

t.test(
  "records of the version before are read: their process by its old names, and as the earliest records of all",
  async (t) => {
    const { sequence: _, qemu: __, ...oldSource } = common;
    t.same(decodeSourceRecord({ kind: "granted", ...oldSource }), { kind: "granted", ...oldSource, sequence: 0 });
    const old = { kind: "running", guest: "web", qemuPid: 7, qemuProcess: "boot/7/9", grant };
    const read = { kind: "running", guest: "web", source: "", sequence: 0, startedAtMs: 0, grant };
    t.same(decodeDestinationRecord(old), { ...read, qemu: { pid: 7, identity: "boot/7/9" } });
    t.same(
      decodeDestinationRecord({ ...old, qemuProcess: "" }),
      read,
      "the record was written before its QEMU was known",
    );
    const layout = { ramSectionId: 2, blocks: [], frameBytes: 1, creditWindowBytes: 1, codecs: [] };
    const pulled = { ...layout, sourceAddress: "alpha:7411" };
    t.equal(decodeDestinationRecord({ ...old, postcopy: pulled })?.source, "alpha:7411");
  },
);

t.test("of two records the one with the larger sequence is the later, however the clock is set", async (t) => {
  t.equal(nextSequence([], 1000), 1000);
  t.equal(nextSequence([{ sequence: 5 }, { sequence: 3 }], 2), 6, "the clock was set back");
  t.equal(nextSequence([{ sequence: 5 }], 70.5), 70);
  t.ok(isPassedOver({ kind: "plan", sequence: 1 }, [{ sequence: 2 }]));
  t.notOk(isPassedOver({ kind: "plan", sequence: 2 }, [{ sequence: 1 }]));
  t.notOk(isPassedOver({ kind: "granted", sequence: 1 }, [{ sequence: 2 }]), "only the destination settles a grant");
});
