import t from "tap";
import {
  DESTINATION_RECORDS,
  decodeDestinationRecord,
  decodeSourceRecord,
  destinationMayRun,
  SOURCE_RECORDS,
  type SourceRecord,
  sourceMayRun,
} from "../../../shared/protocol/ownership.ts";

const grant = { token: "aa", epoch: 1, paused: false };
const common = { guest: "web", destination: "beta:7412", startedAtMs: 1, grant };
const there = { guest: "web", qemuPid: 1, qemuProcess: "boot/1/2", grant };

t.test(
  "the source may run its guest unless it granted it, and then only on proof of that grant's refusal",
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

t.test("the destination runs the guest only on its own grant, which it has not refused", async (t) => {
  const waiting = { kind: "waiting", ...there } as const;
  t.ok(destinationMayRun(waiting, grant, "aa"));
  t.notOk(destinationMayRun(waiting, grant, "bb"), "another migration's token");
  t.notOk(destinationMayRun(waiting, { ...grant, epoch: 2 }, "aa"), "another epoch");
  t.notOk(destinationMayRun(undefined, grant, "aa"), "nothing was journalled");
  t.ok(destinationMayRun({ kind: "running", ...there }, grant, "aa"), "said again");
  t.notOk(destinationMayRun({ kind: "refused", ...there }, grant, "aa"));
});

t.test("whatever the two journals say of one grant, they never let both run the guest", async (t) => {
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
      // a grant is out only once it was journalled; a refusal is said only once it was
      const granted = source?.kind === "granted" || source?.kind === "released";
      const mayThere = granted && destinationMayRun(destination, grant, grant.token);
      const here = sourceMayRun(source, destination?.kind === "refused" ? grant.token : undefined);
      t.notOk(here && mayThere, `${source?.kind} and ${destination?.kind}`);
      if (source?.kind === "granted") t.equal(here, destination?.kind === "refused");
    }
});

t.test("records are read as they were written, and foreign values are none", async (t) => {
  for (const kind of SOURCE_RECORDS) t.same(decodeSourceRecord({ kind, ...common }), { kind, ...common });
  const settings = { capabilities: { events: true }, parameters: { "downtime-limit": 300 } };
  t.same(decodeSourceRecord({ kind: "plan", ...common, settings }), { kind: "plan", ...common, settings });
  for (const kind of DESTINATION_RECORDS) t.same(decodeDestinationRecord({ kind, ...there }), { kind, ...there });
  const waiting = { kind: "waiting", ...there };
  t.same(decodeDestinationRecord({ ...waiting, more: 1 }), waiting, "what is not known is left out");
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
  for (const foreign of [null, {}, { ...there }, { ...waiting, grant: undefined }, { ...waiting, qemuProcess: 1 }])
    t.equal(decodeDestinationRecord(foreign), undefined, JSON.stringify(foreign));
});

t.test("what post-copy needs to be taken up is part of a record, whole or not at all", async (t) => {
  const source = { kind: "granted", guest: "web", destination: "b:1", startedAtMs: 1, grant } as const;
  const postcopy = {
    ramSectionId: 2,
    blocks: [{ name: "pc.ram", byteLength: 8192 }],
    frameBytes: 65536,
    creditWindowBytes: 1 << 20,
    codecs: ["zstd"],
  } as const;
  t.same(decodeSourceRecord({ ...source, postcopy }), { ...source, postcopy });
  const destination = { kind: "running", guest: "web", qemuPid: 7, qemuProcess: "x", grant } as const;
  const pulled = { ...postcopy, sourceAddress: "a:1" };
  t.same(decodeDestinationRecord({ ...destination, postcopy: pulled }), { ...destination, postcopy: pulled });
  t.same(decodeDestinationRecord({ ...destination, postcopy }), destination, "without an address it is none");
  for (const damaged of [{ ...postcopy, blocks: [{ name: 7 }] }, { ...postcopy, frameBytes: "x" }, [], "x"])
    t.same(decodeSourceRecord({ ...source, postcopy: damaged }), source, JSON.stringify(damaged));
});

t.test("a record of protocol 1 says nothing of a pause: such a guest ran", async (t) => {
  const { paused: _, ...old } = grant;
  t.equal(decodeSourceRecord({ kind: "granted", ...common, grant: old })?.grant.paused, false);
  t.equal(decodeDestinationRecord({ kind: "running", ...there, grant: old })?.grant.paused, false);
  for (const paused of [true, false]) {
    const granted = { kind: "granted", ...common, grant: { ...grant, paused } };
    t.same(decodeSourceRecord(JSON.parse(JSON.stringify(granted))), granted);
  }
});
