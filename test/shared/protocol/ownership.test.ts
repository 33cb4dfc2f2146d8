import t from "tap";
import {
  decodeDestinationRecord,
  decodeSourceRecord,
  destinationMayRun,
  type SourceRecord,
  sourceMayRun,
} from "../../../shared/protocol/ownership.ts";

const grant = { token: "aa", epoch: 1 };
const common = { guest: "web", destination: "beta:7412", startedAtMs: 1 };

t.test(
  "the source may run its guest unless it granted it, and then only on proof of that grant's refusal",
  async (t) => {
    const granted: SourceRecord = { kind: "granted", ...common, grant };
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
  const waiting = { kind: "waiting", guest: "web", qemuPid: 1 } as const;
  t.ok(destinationMayRun(waiting, grant, "aa"));
  t.notOk(destinationMayRun(waiting, grant, "bb"), "another migration's token");
  t.notOk(destinationMayRun(undefined, grant, "aa"), "nothing was journalled");
  t.ok(destinationMayRun({ kind: "running", guest: "web", qemuPid: 1, grant }, grant, "aa"), "said again");
  t.notOk(destinationMayRun({ kind: "refused", guest: "web", qemuPid: 1, grant }, grant, "aa"));
});

t.test("whatever the two journals say of one grant, they never let both run the guest", async (t) => {
  const sources: readonly (SourceRecord | undefined)[] = [
    undefined,
    { kind: "plan", ...common },
    { kind: "granted", ...common, grant },
    { kind: "released", ...common },
    { kind: "kept", ...common },
  ];
  const waiting = { kind: "waiting", guest: "web", qemuPid: 1 } as const;
  const refused = { kind: "refused", guest: "web", qemuPid: 1, grant } as const;
  const running = { kind: "running", guest: "web", qemuPid: 1, grant } as const;
  for (const source of sources)
    for (const destination of [undefined, waiting, running, refused]) {
      // a grant is out only once it was journalled; a refusal is said only once it was
      const granted = source?.kind === "granted" || source?.kind === "released";
      const there = granted && destinationMayRun(destination, grant, grant.token);
      const here = sourceMayRun(source, destination?.kind === "refused" ? grant.token : undefined);
      t.notOk(here && there, `${source?.kind} and ${destination?.kind}`);
      if (source?.kind === "granted") t.equal(here, destination?.kind === "refused");
    }
});

t.test("records are read as they were written, and foreign values are none", async (t) => {
  for (const kind of ["plan", "released", "kept"] as const)
    t.same(decodeSourceRecord({ kind, ...common }), { kind, ...common });
  t.same(decodeSourceRecord({ kind: "granted", ...common, grant }), { kind: "granted", ...common, grant });
  const running = { kind: "running", guest: "web", qemuPid: 7, grant };
  t.same(decodeDestinationRecord(running), running);
  const waiting = { kind: "waiting", guest: "web", qemuPid: 7 };
  t.same(decodeDestinationRecord(waiting), waiting);
  t.same(decodeDestinationRecord({ ...waiting, more: 1 }), waiting, "what is not known is left out");
  for (const foreign of [
    undefined,
    null,
    1,
    "plan",
    {},
    { kind: "plan" },
    { kind: "granted", ...common },
    { kind: "granted", ...common, grant: { token: 1, epoch: 1 } },
    { kind: "granted", ...common, grant: { token: "aa" } },
    { kind: "plan", ...common, startedAtMs: "1" },
    [],
    { ...common, kind: "x" },
  ])
    t.equal(decodeSourceRecord(foreign), undefined, JSON.stringify(foreign));
  for (const foreign of [null, {}, { kind: "running", guest: "web", qemuPid: 7 }, { kind: "waiting", guest: "web" }])
    t.equal(decodeDestinationRecord(foreign), undefined, JSON.stringify(foreign));
});
