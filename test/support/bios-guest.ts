/**
 * A guest that has one program in place of its firmware, for tests that must know every page that the guest writes. It
 * has no kernel, no interrupts and no devices. The program runs in real mode, so it uses memory below 1 MiB; QEMU gives
 * the guest 16 MiB.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { prepareDevices, watchDevices } from "./bios-watch.ts";
import { eventually } from "./bounded.ts";
import { type GuestDefinitionFile, guestFiles } from "./guest.ts";
import { readMemory } from "./guest-memory.ts";
import { RigProcess } from "./process.ts";
import type { Rig } from "./rig.ts";
import { atTeardown } from "./teardown.ts";

const FIRMWARE_BYTES = 65536;
/** Where the CPU begins, as an offset in the firmware. There is a jump to the program: jmp f000:e000. */
const RESET = 0xfff0;
/** Where the program is, as an offset in the firmware. */
const PROGRAM = 0xe000;

/** The pages [from, to) of the guest. */
export interface Pages {
  readonly from: number;
  readonly to: number;
}

/** What the program writes: in each round, every cold page once and every hot page `each` × `hotTurns` times. */
export interface TwoSets {
  readonly cold: Pages;
  readonly hot: Pages;
  readonly hotTurns: number;
  /** How often the hot pages are written in one of the `hotTurns`, 1 to 65 535. @default 65_535 */
  readonly each?: number;
  /**
   * The number of a page outside both sets, for what the program counts of its clock and its devices (bios-watch.ts).
   */
  readonly watch?: number;
}

/** Makes the program, as machine code of the 8086. */
export function twoSets({ cold, hot, hotTurns, each = 0xffff, watch }: TwoSets): Uint8Array {
  const word = (value: number): number[] => [value & 255, value >> 8];
  // a page is 0x100 paragraphs
  const segment = ({ from, to }: Pages, code: readonly number[]): number[] => {
    // mov ds,ax; CODE; add ax,0x100; cmp ax,to
    const body = [0x8e, 0xd8, ...code, 0x05, 0x00, 0x01, 0x3d, ...word(to * 0x100)];
    // mov ax,from; BODY; jb BODY
    return [0xb8, ...word(from * 0x100), ...body, 0x72, -(body.length + 2) & 255];
  };
  const round = segment(cold, [0xfe, 0x06, 0x00, 0x00]); // inc byte [0]
  const turn = segment(hot, [0xff, 0x06, 0x02, 0x00]); // inc word [2]
  const turns = [0xba, ...word(each), ...turn, 0x4a, 0x75, -(turn.length + 3) & 255]; // mov dx,each; TURN; dec dx; jnz
  const look = watch === undefined ? [] : watchDevices(watch);
  const rounds = [...look, ...round, 0xb9, ...word(hotTurns), ...turns, 0x49, 0x75, -(turns.length + 3) & 255]; // mov cx; …; loop
  const once = watch === undefined ? [] : prepareDevices;
  const back = -(rounds.length + 3) & 0xffff;
  return Uint8Array.from([0xfa, ...once, ...rounds, 0xe9, ...word(back)]); // cli; …; jmp ROUNDS
}

export interface BiosGuest {
  readonly qmp: QmpClient;
  /** A folder to which QEMU may write. */
  readonly folder: string;
  end(): Promise<void>;
}

/** Writes a firmware file that holds only this program. */
export function writeFirmware(path: string, program: Uint8Array): void {
  const firmware = new Uint8Array(FIRMWARE_BYTES);
  firmware.set(program, PROGRAM);
  firmware.set([0xea, 0x00, 0xe0, 0x00, 0xf0], RESET);
  writeFileSync(path, firmware);
}

/**
 * Defines a guest of this program for both hosts of a rig.
 * @param machine QEMU's options, without its name, its firmware and its monitors. One of the monitors is the tests' own
 */
export function biosDefinition(rig: Rig, name: string, program: Uint8Array, machine: string): GuestDefinitionFile {
  const firmware = join(rig.folder, "firmware");
  writeFirmware(firmware, program);
  const { qmp, observer } = guestFiles(name);
  const monitors = [qmp, observer].flatMap((file) => ["-qmp", `unix:{runtime}/${file},server=on,wait=off`]);
  const bare = "-machine pc-q35-8.1 -nodefaults -no-user-config -display none";
  const command = ["qemu-system-x86_64", "-name", name, ...`${bare} ${machine}`.split(" ")] as const;
  return { name, qmp: `{runtime}/${qmp}`, command: [...command, "-bios", firmware, ...monitors] };
}

/** Starts such a guest under TCG, with further arguments such as -incoming. @throws Error when QEMU does not answer */
export async function startBiosGuest(program: Uint8Array, extra: readonly string[] = []): Promise<BiosGuest> {
  const folder = mkdtempSync(join(tmpdir(), "ferry-bios-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const forget = atTeardown(remove);
  writeFirmware(join(folder, "bios"), program);
  const socket = join(folder, "qmp");
  const machine = "-M pc-q35-8.1 -accel tcg -m 16 -nodefaults -no-user-config -display none".split(" ");
  const monitor = ["-bios", join(folder, "bios"), "-qmp", `unix:${socket},server=on,wait=off`];
  const command = ["qemu-system-x86_64", ...machine, ...monitor, ...extra];
  const qemu = await RigProcess.start({ name: "bios guest", command });
  const qmp = await eventually(
    async () => {
      if (!qemu.running) throw new Error(`QEMU ended: ${qemu.output()}`);
      return await QmpClient.connect(socket).catch(() => undefined);
    },
    { timeoutMs: 10_000, what: "the monitor of the bios guest" },
  );
  const end = async (): Promise<void> => {
    qmp.close();
    // a QEMU whose guest waits for a page that does not come cannot end by itself
    await qemu.stop({ graceMs: 500 });
    forget();
    remove();
  };
  return { qmp, folder, end };
}

/** The length of conventional memory, in which the program runs. */
const LOW_BYTES = 0xa0000;

/**
 * Checks the two sets of pages in a stopped guest. The program goes through its pages in order, so each page was
 * changed as often as the page before it, or, at one place in each set, once less.
 * @returns `most` is the number of changes that are missing from one page to the next, summed over a set, in the set
 *   with more of them: 0 or 1 is right. `counters` is the count of each page, as text
 */
export async function setSteps(
  guest: Pick<BiosGuest, "qmp" | "folder">,
  { cold, hot }: TwoSets,
): Promise<{ most: number; counters: string }> {
  const memory = await readMemory(guest.qmp, 0, LOW_BYTES, guest);
  const counters = (pages: Pages, read: (at: number) => number): number[] =>
    Array.from({ length: pages.to - pages.from }, (_, i) => read((pages.from + i) * 4096));
  const sets: [values: number[], limit: number][] = [
    [counters(cold, (at) => memory.readUInt8(at)), 0x100],
    [counters(hot, (at) => memory.readUInt16LE(at + 2)), 0x10000],
  ];
  const less = sets.map(([values, limit]) =>
    values.slice(1).reduce((sum, value, i) => sum + ((values[i]! - value + limit) % limit), 0),
  );
  return { most: Math.max(...less), counters: sets.map(([values]) => values.join(" ")).join(" | ") };
}
