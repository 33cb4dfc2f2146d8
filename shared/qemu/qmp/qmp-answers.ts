/**
 * Reads QEMU's answers and events: a value becomes one of the types of qmp-types.ts only when each field that the
 * agents read has its type, and no text and no list is longer than any that QEMU writes. A guest that has broken out of
 * its QEMU can make that QEMU say anything.
 *
 * Fields that the agents do not read are not looked at. What a value means is left to the callers.
 */
import { MigrationFault } from "../../fault.ts";
import type {
  BlockInfo,
  BlockNode,
  ImageInfo,
  MachineInfo,
  MemoryBackend,
  MigrationInfo,
  MigrationParameters,
  QmpCommandName,
  QmpCommands,
  QmpEventData,
} from "./qmp-types.ts";

/** The most characters of a text. The longest are the paths of images, and the words of an error. */
const TEXT_MAX = 4096;
/** The most characters of a property of the object tree, as JSON. The longest are the feature words of a processor. */
const PROPERTY_MAX = 16_384;
/** The most entries of a list. A guest has some hundreds of objects of a kind at most. */
const ENTRIES_MAX = 10_000;
/** The most backing images below one image. */
const IMAGES_MAX = 200;

/** Reads a value. A fault calls the value by its `name`. @throws MigrationFault `qmp-protocol` */
type Read<T> = (value: unknown, name: string) => T;

const wrong = (name: string, what: string): MigrationFault =>
  new MigrationFault("qmp-protocol", `QEMU's monitor sent ${name} that ${what}`);

/** A text of the human monitor. Only the longest line of the protocol bounds its length (qmp-lines.ts). */
const longText: Read<string> = (value, name) => {
  if (typeof value !== "string") throw wrong(name, "is no text");
  return value;
};

const text: Read<string> = (value, name) => {
  const found = longText(value, name);
  if (found.length > TEXT_MAX) throw wrong(name, `has ${found.length} characters; at most ${TEXT_MAX} are allowed`);
  return found;
};

const number: Read<number> = (value, name) => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw wrong(name, "is no number");
  return value;
};

const flag: Read<boolean> = (value, name) => {
  if (typeof value !== "boolean") throw wrong(name, "is neither true nor false");
  return value;
};

const anything = <T>(value: T): T => value;
/** Words for people, which are cut where they are too long. */
const words: Read<string> = (value, name) => longText(value, name).slice(0, TEXT_MAX);

/** A value of the object tree. Only its length is checked here, as JSON; the caller checks its form. */
const property: Read<unknown> = (value, name) => {
  if (JSON.stringify(value).length > PROPERTY_MAX) throw wrong(name, `is longer than ${PROPERTY_MAX} characters`);
  return value;
};

/** An answer that says only that the command has succeeded. */
const nothing: Read<void> = () => undefined;

const optional =
  <T>(read: Read<T>): Read<T | undefined> =>
  (value, name) =>
    value === undefined || value === null ? undefined : read(value, name);

const list =
  <T>(read: Read<T>): Read<readonly T[]> =>
  (value, name) => {
    if (!Array.isArray(value)) throw wrong(name, "is no list");
    if (value.length > ENTRIES_MAX)
      throw wrong(name, `has ${value.length} entries; at most ${ENTRIES_MAX} are allowed`);
    return value.map((one) => read(one, `an entry of ${name}`));
  };

type Fields = Readonly<Record<string, unknown>>;

const fieldsOf = (value: unknown, name: string): Fields => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(name, "is no object");
  return { ...value };
};

/** Reads an object, with all fields that `reads` names. A field that is read as undefined is left out. */
const object =
  <T extends object>(reads: { readonly [K in keyof T]-?: Read<T[K]> }): Read<T> =>
  (value, name) => {
    const fields = fieldsOf(value, name);
    const read: Partial<T> = {};
    for (const key in reads) {
      const found = reads[key](fields[key], `the ${key} of ${name}`);
      if (found !== undefined) read[key] = found;
    }
    return read as T;
  };

const image =
  (depth: number): Read<ImageInfo> =>
  (value, name) => {
    if (depth > IMAGES_MAX) throw wrong(name, `has more than ${IMAGES_MAX} images below each other`);
    return object<ImageInfo>({
      filename: text,
      format: text,
      "virtual-size": number,
      "backing-image": optional(image(depth + 1)),
    })(value, name);
  };

const migrationInfo = object<MigrationInfo>({
  status: optional(text),
  ram: optional(
    object({
      total: number,
      remaining: number,
      transferred: number,
      "dirty-sync-count": number,
      "dirty-pages-rate": number,
      "page-size": number,
    }),
  ),
  "error-desc": optional(words),
  "blocked-reasons": optional(list(words)),
  downtime: optional(number),
  "expected-downtime": optional(number),
  "total-time": optional(number),
});

/** Reads parameters. Those that are neither text, number nor flag are left out, since no agent reads one of them. */
const parameters: Read<MigrationParameters> = (value, name) => {
  const read: Record<string, number | string | boolean> = {};
  for (const [key, one] of Object.entries(fieldsOf(value, name)).slice(0, ENTRIES_MAX))
    if (typeof one === "string") read[key] = text(one, `the ${key} of ${name}`);
    else if (typeof one === "number" || typeof one === "boolean") read[key] = one;
  return read;
};

const blockInfo = object<BlockInfo>({
  device: text,
  qdev: optional(text),
  removable: flag,
  inserted: optional(object<NonNullable<BlockInfo["inserted"]>>({ image: image(0), "node-name": optional(text) })),
});

const blockNode = object<BlockNode>({
  "node-name": optional(text),
  drv: optional(text),
  file: optional(text),
  ro: optional(flag),
  image: optional(image(0)),
});

const version = object({ major: number, minor: number, micro: number });
const capabilities = list(object({ capability: text, state: flag }));
const pciDevice = object({ slot: number, function: number, id: object({ vendor: number, device: number }) });

/** How the answer to each command is read. */
const ANSWERS: { readonly [C in QmpCommandName]: Read<QmpCommands[C]["returns"]> } = {
  "query-status": object({ status: text, running: flag }),
  "query-kvm": object({ enabled: flag, present: flag }),
  "query-version": object({ qemu: version, package: text }),
  "query-migrate": migrationInfo,
  migrate: nothing,
  "migrate-recover": nothing,
  "migrate-pause": nothing,
  migrate_cancel: nothing,
  "migrate-start-postcopy": nothing,
  "migrate-incoming": nothing,
  "migrate-set-capabilities": nothing,
  "query-migrate-capabilities": capabilities,
  "migrate-set-parameters": nothing,
  "query-migrate-parameters": parameters,
  stop: nothing,
  cont: nothing,
  quit: nothing,
  "announce-self": nothing,
  pmemsave: nothing,
  "human-monitor-command": longText,
  "query-cpus-fast": list(object({ "cpu-index": number, "qom-path": text, "thread-id": number, target: text })),
  "qom-get": property,
  "qom-list": list(object({ name: text, type: text })),
  "object-add": nothing,
  "object-del": nothing,
  "blockdev-set-active": nothing,
  "query-named-block-nodes": list(blockNode),
  "query-block": list(blockInfo),
  "query-block-jobs": list(object({ type: text, device: text, status: text })),
  eject: nothing,
  "blockdev-change-medium": nothing,
  balloon: anything,
  "query-vm-generation-id": object({ guid: text }),
  "query-pci": list(object({ devices: list(pciDevice) })),
  "query-machines": list(
    object<MachineInfo>({
      name: text,
      alias: optional(text),
      "is-default": optional(flag),
      deprecated: optional(flag),
    }),
  ),
  "query-memdev": list(object<MemoryBackend>({ id: optional(text), share: optional(flag), size: optional(number) })),
  "query-memory-devices": list(object({ type: text, data: fieldsOf })),
};

/** Reads the answer to a command. @throws MigrationFault `qmp-protocol` for an answer that QEMU does not give */
export function readAnswer<C extends QmpCommandName>(command: C, value: unknown): QmpCommands[C]["returns"] {
  // a test program sends commands that no agent sends, and checks their answers itself
  const read: Read<QmpCommands[C]["returns"]> = ANSWERS[command] ?? anything;
  return read(value, `an answer to ${command}`);
}

/** How the data of each event that the agents use is read. The data of other events is passed on unchecked. */
const EVENTS: { readonly [E in keyof QmpEventData]: Read<QmpEventData[E]> } = {
  STOP: fieldsOf,
  RESUME: fieldsOf,
  SHUTDOWN: object({ guest: flag, reason: text }),
  MIGRATION: object({ status: text }),
  MIGRATION_PASS: object({ pass: number }),
};

const isKnown = (event: string): event is keyof QmpEventData => Object.hasOwn(EVENTS, event);

/** Checks the data of an event. @throws MigrationFault `qmp-protocol` for data that QEMU does not send */
export function readEvent(event: string, data: Fields): Readonly<Record<string, unknown>> {
  return isKnown(event) ? { ...data, ...EVENTS[event](data, `an event ${event}`) } : data;
}
