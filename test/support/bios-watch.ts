/**
 * A part of a real-mode program (bios-guest.ts) that checks in each round whether the guest's clock goes forward, and
 * whether its devices are as the program has left them. A migration carries these beside the memory.
 */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { readMemory } from "./guest-memory.ts";

/** The place of a byte in the clock chip's memory, and the value that the program writes there. */
const CMOS = { index: 0x50, value: 0xa5 } as const;
/** The value that the program writes to the interrupt controller's mask. Under KVM that controller is in the kernel. */
const MASK = 0x5a;

/** What the program has counted since its start. Each count begins again at 0 after 65 535. */
export interface Watched {
  readonly rounds: number;
  /** How many rounds found the time-stamp counter less than in the round before. */
  readonly clockWentBack: number;
  /** How many rounds found the clock chip's memory, or the interrupt mask, not as it was written. */
  readonly cmosLost: number;
  readonly maskLost: number;
}

/** Machine code that runs once: it writes to both devices. */
export const prepareDevices: readonly number[] = [
  ...[0xb0, CMOS.index, 0xe6, 0x70], // mov al,INDEX; out 0x70,al
  ...[0xb0, CMOS.value, 0xe6, 0x71], // mov al,VALUE; out 0x71,al
  ...[0xb0, MASK, 0xe6, 0x21], // mov al,MASK; out 0x21,al
];

/** Machine code that runs in each round. @param page the number of the guest's page where it keeps its counts */
export const watchDevices = (page: number): readonly number[] => [
  ...[0xb8, 0x00, page, 0x8e, 0xd8], // mov ax,PAGE * 0x100; mov ds,ax
  ...[0x0f, 0x31], // rdtsc
  ...[0x66, 0x3b, 0x16, 0x04, 0x00, 0x77, 0x0d, 0x72, 0x07], // cmp edx,[4]; ja FORWARD; jb BACK
  ...[0x66, 0x3b, 0x06, 0x00, 0x00, 0x73, 0x04], // cmp eax,[0]; jae FORWARD
  ...[0xff, 0x06, 0x08, 0x00], // BACK: inc word [8]
  ...[0x66, 0xa3, 0x00, 0x00, 0x66, 0x89, 0x16, 0x04, 0x00], // FORWARD: mov [0],eax; mov [4],edx
  ...[0xb0, CMOS.index, 0xe6, 0x70, 0xe4, 0x71], // mov al,INDEX; out 0x70,al; in al,0x71
  ...[0x3c, CMOS.value, 0x74, 0x04, 0xff, 0x06, 0x0a, 0x00], // cmp al,VALUE; je +4; inc word [10]
  ...[0xe4, 0x21, 0x3c, MASK, 0x74, 0x04, 0xff, 0x06, 0x0c, 0x00], // in al,0x21; cmp al,MASK; je +4; inc word [12]
  ...[0xff, 0x06, 0x0e, 0x00], // inc word [14]
];

/** Reads what the program has counted. All counts but `rounds` stay 0 while all is right. */
export async function readWatched(guest: { qmp: QmpClient; folder: string }, page: number): Promise<Watched> {
  const memory = await readMemory(guest.qmp, page * 4096, 4096, guest);
  const [clockWentBack = 0, cmosLost = 0, maskLost = 0, rounds = 0] = [8, 10, 12, 14].map((at) =>
    memory.readUInt16LE(at),
  );
  return { rounds, clockWentBack, cmosLost, maskLost };
}
