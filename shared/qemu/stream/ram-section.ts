/**
 * Numbers of QEMU's migration stream, in which all integers are big-endian. They are the same from 7.2 to 10.2
 * (migration/savevm.h, migration/savevm.c, migration/ram.h, migration/migration.h).
 */

export const FILE_MAGIC = 0x5145564d; // "QEVM"
export const FILE_VERSION = 3;

/** Section types, migration/savevm.h. */
export const EOF = 0x00;
export const SECTION_START = 0x01;
export const SECTION_PART = 0x02;
export const SECTION_END = 0x03;
export const SECTION_FULL = 0x04;
export const SUBSECTION = 0x05;
export const VMDESCRIPTION = 0x06;
export const CONFIGURATION = 0x07;
export const COMMAND = 0x08;
export const SECTION_FOOTER = 0x7e;

/** Flags in the low bits of a RAM record's offset, migration/ram.h. */
export const RAM_ZERO = 0x002;
export const RAM_MEM_SIZE = 0x004;
export const RAM_PAGE = 0x008;
export const RAM_EOS = 0x010;
export const RAM_CONTINUE = 0x020;
export const RAM_XBZRLE = 0x040;
const RAM_HOOK = 0x080;
const RAM_COMPRESS_PAGE = 0x100;
const RAM_MULTIFD_FLUSH = 0x200;
export const RAM_FLAGS = 0xfff;

/** The version of the "ram" section, migration/ram.c. */
export const RAM_VERSION = 4;
/** Marks an XBZRLE record's encoding, migration/ram.c ENCODING_FLAG_XBZRLE. */
export const ENCODING_XBZRLE = 0x01;

/** Commands, migration/savevm.c enum qemu_vm_cmd. */
export const COMMANDS = {
  openReturnPath: 1,
  ping: 2,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7,
  enableColo: 8,
  postcopyResume: 9,
  recvBitmap: 10,
  switchoverStart: 11,
} as const;

/** The most ranges of one RAM_DISCARD, migration/postcopy-ram.c MAX_DISCARDS_PER_COMMAND. */
export const DISCARDS_PER_COMMAND = 12;
/** The first byte of a RAM_DISCARD's payload, migration/savevm.c postcopy_ram_discard_version. */
export const DISCARD_VERSION = 0;

export function commandName(command: number): string {
  return Object.entries(COMMANDS).find(([, number]) => number === command)?.[0] ?? `number ${command}`;
}

/** Says what records with these flags are, and what makes QEMU send them. */
export function flagName(flags: number): string {
  if (flags & RAM_XBZRLE) return "XBZRLE records (capability xbzrle)";
  if (flags & RAM_COMPRESS_PAGE) return "compressed pages (capability compress)";
  if (flags & RAM_MULTIFD_FLUSH) return "multifd (capability multifd)";
  if (flags & RAM_HOOK) return "hooks (RDMA)";
  return `records with flags 0x${flags.toString(16)}`;
}
