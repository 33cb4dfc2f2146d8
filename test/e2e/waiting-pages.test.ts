/**
 * QEMU loses writes under TCG when it syncs its dirty bitmap while pages wait in it (docs/decisions/0023). The order in
 * which the source agent sets QEMU's limits prevents such a sync, which is tested here with a guest that is made for
 * it.
 */
import { join } from "node:path";
import t, { type Test } from "tap";
import { Intake } from "../../agent-source/capture/intake.ts";
import { allowStop, applySettings, beginPostcopy } from "../../agent-source/guest/qemu-settings.ts";
import { MemoryLayout } from "../../shared/page/geometry.ts";
import { refusePostcopy } from "../../shared/qemu/inspect/postcopy-ability.ts";
import {
  type PostcopySink,
  type RamSetup,
  StreamReader,
  type StreamSink,
} from "../../shared/qemu/stream/stream-reader.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";
import { type BiosGuest, type Pages, startBiosGuest, twoSets } from "../support/bios-guest.ts";
import { bounded } from "../support/bounded.ts";
import { readMemory } from "../support/guest-memory.ts";

t.setTimeout(120_000);

/**
 * The cold pages come before the hot ones in QEMU's sweep. They are more than the 64 pages that QEMU sends between two
 * looks at its clock.
 */
const COLD: Pages = { from: 0x10, to: 0x80 };
const HOT: Pages = { from: 0x80, to: 0x90 };
/** How many pages are compared: those below the hole at 640 KiB. */
const RAM_PAGES = 0xa0;
/** For how long the stream is left unread after a section, milliseconds: longer than QEMU writes at one section. */
const HOLD_MS = 70;
const WINDOW_BYTES = 1 << 20;
/**
 * How many sections are read after the hot pages have waited: enough for the hot pages to be sent and written again.
 */
const SECTIONS_AFTER = 3;
const WITHIN_MS = 60_000;

/** Keeps the guest's memory as the stream has it, and leaves the stream unread for a while after each section. */
class SlowReader implements StreamSink, PostcopySink {
  readonly memory = new Uint8Array(WINDOW_BYTES);
  readonly seen = Buffer.alloc(RAM_PAGES * PAGE_SIZE);
  readonly intake: Intake;
  readonly ended: Promise<void>;
  /**
   * Resolves when the cold pages were sent in two sections, so that the hot pages waited meanwhile, and the hot pages
   * were sent since.
   */
  readonly waited: Promise<void>;
  /** Resolves, once the package has come, with the pages that QEMU says it will send again in post-copy. */
  readonly named: Promise<ReadonlySet<number>>;
  private resolveEnded: () => void = () => undefined;
  private resolveWaited: () => void = () => undefined;
  private resolveNamed: (named: ReadonlySet<number>) => void = () => undefined;
  private readonly discarded = new Set<number>();
  private layoutSeen: MemoryLayout | undefined;
  private firstPage = 0;
  private pages = 0;
  private before = 0;
  private after = 0;
  private hurry = false;

  constructor() {
    this.ended = new Promise((resolve) => {
      this.resolveEnded = resolve;
    });
    this.waited = new Promise((resolve) => {
      this.resolveWaited = resolve;
    });
    this.named = new Promise((resolve) => {
      this.resolveNamed = resolve;
    });
    const window: Address = address(0);
    this.intake = new Intake({
      memory: this.memory,
      window,
      windowBytes: WINDOW_BYTES,
      reader: new StreamReader(this.memory, this, {}, this),
      clock: systemClock,
      onFault: (fault) => {
        throw fault;
      },
    });
  }

  /** Reads the rest of the stream without a break. */
  readToTheEnd(): void {
    this.hurry = true;
    this.intake.resume();
  }

  discard(firstPage: number, pageCount: number): void {
    for (let page = firstPage; page < firstPage + pageCount; page++) this.discarded.add(page - this.firstPage);
  }

  packageEnd(): this {
    this.resolveNamed(this.discarded);
    return this;
  }

  advised(): void {}
  ping(): void {}
  packageStart(): void {}
  packageBytes(): void {}
  prologue(): void {}
  device(): void {}
  stopped(): void {}
  ramEnd(): void {}

  layout(setup: RamSetup): void {
    this.layoutSeen = new MemoryLayout(setup.blocks);
    for (const { name, byteLength } of setup.blocks) {
      if (name === "pc.ram") return;
      this.firstPage += byteLength / PAGE_SIZE;
    }
  }

  page(page: number, at: number): boolean {
    const place = (page - this.firstPage) * PAGE_SIZE;
    if (place >= 0 && place < this.seen.length) this.seen.set(this.memory.subarray(at, at + PAGE_SIZE), place);
    this.pages++;
    return true;
  }

  zeroPage(page: number): boolean {
    const place = (page - this.firstPage) * PAGE_SIZE;
    if (place >= 0 && place < this.seen.length) this.seen.fill(0, place, place + PAGE_SIZE);
    this.pages++;
    return true;
  }

  partEnd(): boolean {
    const pages = this.pages;
    this.pages = 0;
    if (this.hurry || this.layoutSeen === undefined) return true;
    const rest = COLD.to - COLD.from + HOT.to - HOT.from - 65;
    if (this.after > 0 || (this.before === 65 && pages === rest)) this.after++;
    if (this.after > SECTIONS_AFTER) this.resolveWaited();
    this.before = pages;
    // sections without pages are read on: a socket full of them would last for half a minute
    if (pages === 0) return true;
    setTimeout(() => this.intake.resume(), HOLD_MS);
    return false;
  }

  end(): void {
    this.resolveEnded();
  }
}

type Order = "as the agent does" | "limits first" | "post-copy";

/**
 * Migrates the guest with QEMU's limits set in the given order, until the guest is stopped.
 * @returns the pages of the stopped guest that are not as the stream had them, and that QEMU will not send again
 */
async function pagesThatDiffer(guest: BiosGuest, order: Order): Promise<number[]> {
  const { qmp, folder } = guest;
  const reader = new SlowReader();
  const path = join(folder, "stream");
  await reader.intake.listen(path);
  await applySettings(qmp, order === "post-copy" ? "postcopy" : "precopy");
  const connected = reader.intake.connected(new AbortController().signal);
  await qmp.execute("migrate", { uri: `unix:${path}` });
  await connected;
  if (order === "limits first") await allowStop(qmp);
  await bounded(reader.waited, WITHIN_MS, "cold pages in two sections");
  if (order === "post-copy") await beginPostcopy(qmp, () => reader.readToTheEnd());
  reader.intake.acknowledgeSwitchover();
  reader.readToTheEnd();
  if (order === "as the agent does") await allowStop(qmp);
  // a QEMU that knows of no dirty page completes as precopy does, although post-copy was asked for
  const again = await bounded(
    Promise.race([reader.named, reader.ended.then(() => new Set<number>())]),
    WITHIN_MS,
    "the end of the stream, or post-copy's package",
  );
  const real = await readMemory(qmp, 0, RAM_PAGES * PAGE_SIZE, { folder });
  await reader.intake.close();
  const differing: number[] = [];
  for (let page = 0; page < RAM_PAGES; page++) {
    const [from, to] = [page * PAGE_SIZE, (page + 1) * PAGE_SIZE];
    if (!again.has(page) && real.compare(reader.seen, from, to, from, to) !== 0) differing.push(page);
  }
  return differing;
}

async function guestOf(t: Test): Promise<BiosGuest> {
  const guest = await startBiosGuest(twoSets({ cold: COLD, hot: HOT, hotTurns: 500 }));
  t.teardown(() => guest.end());
  return guest;
}

t.test("pages that waited while others were sent come as they were last written", async (t) => {
  t.strictSame(await pagesThatDiffer(await guestOf(t), "as the agent does"), []);
});

t.test("post-copy loses no writes to pages that waited, unless it is refused for that QEMU", async (t) => {
  const guest = await guestOf(t);
  const lost = await pagesThatDiffer(guest, "post-copy");
  t.comment(`QEMU lost the last writes to ${lost.length} of ${HOT.to - HOT.from} pages`);
  const refusals = await refusePostcopy(guest.qmp);
  if (refusals.length === 0) t.strictSame(lost, []);
  else t.match(refusals, [{ code: "postcopy-emulated" }]);
});

t.test(
  "a QEMU with the fault may lose writes to the hot pages if its limits are raised before the acknowledgement",
  async (t) => {
    const lost = await pagesThatDiffer(await guestOf(t), "limits first");
    t.ok(
      lost.every((page) => page >= HOT.from && page < HOT.to),
      "only hot pages are concerned",
    );
    t.comment(`QEMU lost the last writes to ${lost.length} of ${HOT.to - HOT.from} pages`);
  },
);
