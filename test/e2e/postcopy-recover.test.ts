/**
 * Breaks a post-copy between two real QEMUs and resumes it, without agents. Pages that were lost on the way come again,
 * one QEMU can be resumed while the other notices nothing, and a source whose destination has ended can have its guest
 * back.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { PageSet } from "../../shared/page/page-set.ts";
import { encodeShut, encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import type { RamSetup } from "../../shared/qemu/stream/stream-reader.ts";
import { type BiosGuest, setSteps, startBiosGuest, type TwoSets, twoSets } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { readMemory } from "../support/guest-memory.ts";
import { type PostcopyRelay, relayPostcopy } from "../support/postcopy-relay.ts";
import { type ResumedSource, type Resumption, resumeDestination, resumeSource } from "../support/resumed-relay.ts";
import { atTeardown } from "../support/teardown.ts";

t.setTimeout(120_000);

const SETS: TwoSets = { cold: { from: 0x20, to: 0x90 }, hot: { from: 0x10, to: 0x20 }, hotTurns: 2 };
const WITHIN = { timeoutMs: 15_000 };
const SLOW = { "max-bandwidth": 1_000_000, "downtime-limit": 1, "avail-switchover-bandwidth": 1_000_000 };
/**
 * Where memory lies that the guest never changes. It is more than sockets hold; otherwise the source would have written
 * all of it, and END, before its stream is broken.
 */
const FILL_AT = 0x200000;
const FILL = pattern(4 << 20);
const READ_AHEAD = 60;

interface Moved {
  readonly source: BiosGuest;
  readonly destination: BiosGuest;
  readonly relay: PostcopyRelay;
  readonly setup: RamSetup;
}

/**
 * Brings a guest into post-copy: it runs at the destination, and misses most of its pages there. Some pages were read
 * from the source and not delivered.
 */
async function running(t: Test): Promise<Moved> {
  const folder = mkdtempSync(join(tmpdir(), "ferry-fill-"));
  const forget = atTeardown(() => rmSync(folder, { recursive: true, force: true }));
  t.teardown(() => {
    forget();
    rmSync(folder, { recursive: true, force: true });
  });
  const fill = join(folder, "fill");
  writeFileSync(fill, FILL);
  const loader = ["-device", `loader,file=${fill},addr=${FILL_AT},force-raw=on`];
  const source = await startBiosGuest(twoSets(SETS), loader);
  t.teardown(() => source.end());
  const destination = await startBiosGuest(twoSets(SETS), [...loader, "-incoming", "defer", "-S"]);
  t.teardown(() => destination.end());
  await source.qmp.execute("migrate-set-parameters", SLOW);
  const relay = await relayPostcopy(source, destination, { hold: true, readAhead: READ_AHEAD });
  await eventually(() => relay.counts.before > SETS.hot.to || undefined, { ...WITHIN, what: "the hot pages" });
  await source.qmp.execute("migrate-start-postcopy");
  relay.source.write(encodeSwitchoverAck());
  const loaded = async (): Promise<true | undefined> =>
    (relay.log.includes("pong 3") && (await runState(destination)) === "paused") || undefined;
  await eventually(loaded, { ...WITHIN, what: "the package to be loaded" });
  await destination.qmp.execute("cont");
  await eventually(() => relay.counts.requests > 0 || undefined, { ...WITHIN, what: "a request" });
  const { setup } = relay;
  if (setup === undefined) throw new Error("no RAM blocks were told");
  return { source, destination, relay, setup };
}

/** Makes bytes of which no page is zero, and neighbouring pages differ. */
function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let page = 0; page < length; page += 4096) bytes.fill(1 + ((page >> 12) % 255), page, page + 4096);
  return bytes;
}

const runState = async ({ qmp }: BiosGuest): Promise<string> => (await qmp.execute("query-status")).status;
const reaches = async ({ qmp }: BiosGuest, status: string): Promise<void> => {
  const there = async (): Promise<true | undefined> =>
    (await qmp.execute("query-migrate")).status === status || undefined;
  await eventually(there, { ...WITHIN, what: `status ${status}` });
};
const deliver =
  (relay: PostcopyRelay): Resumption["take"] =>
  (page, content) =>
    relay.deliver(page, content);
const ended = async (resumed: ResumedSource): Promise<void> => {
  await eventually(() => resumed.log.includes("end") || undefined, {
    ...WITHIN,
    what: "the end of the resumed stream",
  });
};

/** Checks that both QEMUs complete, after every page was delivered. */
async function complete(t: Test, { source, destination, relay }: Moved, say: (bytes: Uint8Array) => void) {
  await reaches(destination, "completed");
  say(encodeShut(0));
  await reaches(source, "completed");
  t.equal(await runState(source), "postmigrate");
  t.equal(relay.counts.twice, 0);
  await checkGuest(t, destination);
}

async function checkGuest(t: Test, guest: BiosGuest): Promise<void> {
  t.equal(await runState(guest), "running");
  const before = await setSteps(guest, SETS);
  const moves = async (): Promise<true | undefined> =>
    (await setSteps(guest, SETS)).counters !== before.counters || undefined;
  await eventually(moves, { ...WITHIN, what: "the guest to go on" });
  await guest.qmp.execute("stop");
  const { most, counters } = await setSteps(guest, SETS);
  t.ok(most <= 1, counters);
  t.ok(
    (await readMemory(guest.qmp, FILL_AT, FILL.length, guest)).equals(FILL),
    "the memory that the guest never changed is the same",
  );
}

t.test("when both connections break, pages lost on the way come again, and no page comes twice", async (t) => {
  const moved = await running(t);
  const { source, destination, relay, setup } = moved;
  relay.source.destroy();
  relay.destination.destroy();
  const lost = relay.lose();
  t.ok(lost > 0, `${lost} pages were lost`);
  await reaches(source, "postcopy-paused");
  await reaches(destination, "postcopy-paused");
  const to = await resumeDestination(destination, setup);
  relay.redirect(to.socket);
  t.strictSame(to.received, relay.present, "the destination's QEMU has the pages that were written to it");
  await eventually(() => to.wanted.size > 0 || undefined, { ...WITHIN, what: "what its guest waits for" });
  const missing = to.received.pageCount - to.received.size;
  const from = await resumeSource(source, setup, { received: to.received, take: deliver(relay) });
  await ended(from);
  t.strictSame(from.log, [...setup.blocks.map(({ name }) => name), "resumed", "ramEnd", "end"]);
  t.equal(from.pages, missing);
  relay.endPostcopy();
  await complete(t, moved, (bytes) => from.socket.write(bytes));
});

t.test(
  "a source whose connection breaks is resumed with nothing but the list of pages written to the destination",
  async (t) => {
    const moved = await running(t);
    const { source, destination, relay, setup } = moved;
    relay.source.destroy();
    relay.lose();
    await reaches(source, "postcopy-paused");
    const from = await resumeSource(source, setup, { received: relay.present, take: deliver(relay) });
    await ended(from);
    relay.endPostcopy();
    t.equal((await destination.qmp.execute("query-migrate"))["error-desc"], undefined);
    await complete(t, moved, (bytes) => from.socket.write(bytes));
  },
);

t.test("a destination whose connection breaks is resumed although its monitor waits for the guest", async (t) => {
  const moved = await running(t);
  const { source, destination, relay, setup } = moved;
  relay.destination.destroy();
  await reaches(destination, "postcopy-paused");
  // a vCPU waits for a page, and QEMU's main loop waits for the vCPU
  const stopped = destination.qmp.execute("stop", undefined, WITHIN);
  let answered = false;
  const asked = destination.qmp.execute("query-status", undefined, WITHIN).finally(() => {
    answered = true;
  });
  const to = await resumeDestination(destination, setup);
  t.notOk(answered, "the monitor has answered no other command");
  relay.redirect(to.socket);
  t.equal((await source.qmp.execute("query-migrate")).status, "postcopy-active");
  relay.release();
  await stopped;
  t.equal((await asked).status, "paused");
  await destination.qmp.execute("cont");
  await complete(t, moved, (bytes) => relay.source.write(bytes));
});

t.test("a source whose connection broke gets its guest back after the destination has ended", async (t) => {
  const { source, destination, relay, setup } = await running(t);
  relay.source.destroy();
  await destination.end();
  await reaches(source, "postcopy-paused");
  t.equal(await runState(source), "finish-migrate");
  const everything = new PageSet(relay.present.pageCount);
  everything.addRange(0, everything.pageCount);
  const from = await resumeSource(source, setup, { received: everything, take: () => undefined });
  await ended(from);
  t.equal(from.pages, 0);
  t.equal(await runState(source), "finish-migrate");
  from.socket.write(encodeShut(1));
  await reaches(source, "failed");
  await checkGuest(t, source);
});

t.test("a source sends pages again that it has sent before, however often its connection breaks", async (t) => {
  const { source, relay, setup } = await running(t);
  relay.source.destroy();
  await reaches(source, "postcopy-paused");
  const nothing = new PageSet(relay.present.pageCount);
  let taken = 0;
  const broken = await resumeSource(source, setup, {
    received: nothing,
    take: () => {
      taken++;
      if (taken === READ_AHEAD) broken.socket.destroy();
    },
  });
  await reaches(source, "postcopy-paused");
  const pages = new PageSet(nothing.pageCount);
  const from = await resumeSource(source, setup, { received: nothing, take: (page) => void pages.add(page) });
  await ended(from);
  t.equal(pages.size, nothing.pageCount);
  t.equal(from.pages, nothing.pageCount);
  from.socket.write(encodeShut(1));
  await reaches(source, "failed");
  await checkGuest(t, source);
});
