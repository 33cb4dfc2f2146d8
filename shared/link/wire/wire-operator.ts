/**
 * Translates what the operator asks and sees between its domain types and the messages of
 * proto/ferry/v1/operator.proto.
 */
import { defined } from "../../defined.ts";
import { MigrationFault, type Refusal } from "../../fault.ts";
import { DEADLINE_ACTIONS, STRATEGIES } from "../../protocol/messages.ts";
import {
  type GuestView,
  HEAT_CELLS_MAX,
  type HeatMapBlock,
  type MigrateCall,
  type MigrateOptions,
  type MigrationResult,
  type MigrationStatus,
  type MigrationView,
  type Progress,
  type ResolveCall,
} from "../../protocol/report.ts";
import { refuseWish } from "../../protocol/strategies.ts";
import type { Translation } from "./proto-files.ts";
import { ADDRESS_CHARACTERS_MAX } from "./wire-handshake.ts";
import {
  beginningOf,
  bytes,
  codeText,
  flag,
  list,
  malformed,
  number,
  numbers,
  object,
  shortText,
  strings,
  text,
  textMap,
  type WireObject,
} from "./wire-read.ts";

const STATUSES: Readonly<Record<MigrationStatus, string>> = {
  preparing: "MIGRATION_STATUS_PREPARING",
  copying: "MIGRATION_STATUS_COPYING",
  switching: "MIGRATION_STATUS_SWITCHING",
  granting: "MIGRATION_STATUS_GRANTING",
  moved: "MIGRATION_STATUS_MOVED",
  failed: "MIGRATION_STATUS_FAILED",
  cancelled: "MIGRATION_STATUS_CANCELLED",
  inDoubt: "MIGRATION_STATUS_IN_DOUBT",
  doubled: "MIGRATION_STATUS_DOUBLED",
  undoing: "MIGRATION_STATUS_UNDOING",
  serving: "MIGRATION_STATUS_SERVING",
};

/** The range of zstd's levels that make sense for pages. */
const LEVEL_MIN = -50;
const LEVEL_MAX = 19;
/** How many cells the heat map of a block has when the call does not say it. */
const HEAT_CELLS = 256;

export const migrateCallWire: Translation<MigrateCall> = {
  toWire: ({ guest, to, options }) => ({
    guest,
    to,
    options: {
      strategy: options.strategy,
      downtimeTargetMs: options.downtimeTargetMs,
      deadlineMs: options.deadlineMs,
      onDeadline: options.onDeadline,
      bandwidthBytesPerSecond: options.bandwidthBytesPerSecond,
      noDelta: !options.delta,
      noReorder: !options.reorder,
      compression: String(options.compression),
      verify: options.verify,
      sharedDisksUnchecked: options.sharedDisksUnchecked,
      robust: options.robust,
    },
  }),
  fromWire: (wire) => {
    const given = object(wire, "request");
    const guest = shortText(given.guest, "guest");
    const to = text(given.to, "to");
    if (guest === "") throw wrong("guest", guest, "a guest's name");
    const address = `the destination agent's address, "host:port"`;
    if (to === "") throw wrong("to", to, address);
    // the agent keeps the address for as long as it remembers the migration, and its journal keeps it too
    if (to.length > ADDRESS_CHARACTERS_MAX)
      throw wrong("to", to, `${address}, of at most ${ADDRESS_CHARACTERS_MAX} characters`);
    return { guest, to, options: migrateOptions(object(given.options ?? {}, "options")) };
  },
};

/** Reads options, and fills in the defaults. @throws MigrationFault `invalid-argument`, which says what is allowed */
function migrateOptions(given: WireObject): MigrateOptions {
  const options: MigrateOptions = {
    strategy: oneOf("strategy", given.strategy || "auto", ["auto", ...STRATEGIES] as const),
    onDeadline: oneOf("on_deadline", given.onDeadline || "cancel", DEADLINE_ACTIONS),
    downtimeTargetMs: Number(given.downtimeTargetMs) || 0,
    deadlineMs: Number(given.deadlineMs) || 0,
    bandwidthBytesPerSecond: Number(given.bandwidthBytesPerSecond) || 0,
    delta: !flag(given.noDelta),
    reorder: !flag(given.noReorder),
    compression: compression(given.compression || "auto"),
    verify: flag(given.verify),
    sharedDisksUnchecked: flag(given.sharedDisksUnchecked),
    robust: flag(given.robust),
  };
  for (const { message } of refuseWish(options)) throw new MigrationFault("invalid-argument", message);
  return options;
}

function oneOf<W extends string>(field: string, value: unknown, words: readonly W[]): W {
  const known = words.find((one) => one === value);
  if (known === undefined) throw wrong(field, value, words.join(", "));
  return known;
}

function compression(given: unknown): "auto" | "off" | number {
  if (given === "auto" || given === "off") return given;
  const level = typeof given === "string" && /^-?\d+$/.test(given) ? Number(given) : Number.NaN;
  if (!Number.isInteger(level) || level < LEVEL_MIN || level > LEVEL_MAX || level === 0)
    throw wrong("compression", given, `auto, off or a zstd level from ${LEVEL_MIN} to ${LEVEL_MAX}, not 0`);
  return level;
}

/** Makes the fault of a wrong argument. @param allowed what the field may be */
export const wrong = (field: string, value: unknown, allowed: string): MigrationFault =>
  new MigrationFault("invalid-argument", `${field} is ${JSON.stringify(shown(value))}; it may be ${allowed}`);

const shown = (value: unknown): unknown => (typeof value === "string" ? beginningOf(value) : value);

export const guestsWire: Translation<readonly GuestView[]> = {
  toWire: (guests) => ({ guests }),
  fromWire: (wire) =>
    list(object(wire, "answer").guests, "guests").map((one) => ({
      name: text(one.name, "name"),
      state: text(one.state, "state"),
      detail: text(one.detail, "detail"),
      qemuVersion: text(one.qemuVersion, "QEMU version"),
      machineType: text(one.machineType, "machine type"),
      migrationId: text(one.migrationId, "migration id"),
      definitionDigest: text(one.definitionDigest, "definition digest"),
    })),
};

/** A message that has one field, a short text such as an id. */
export const textWire = (field: string): Translation<string> => ({
  toWire: (value) => ({ [field]: value }),
  fromWire: (wire) => shortText(object(wire, "request")[field], field),
});

/**
 * A request without fields. It is an object all the same, since grpc-js takes undefined for a request that never came.
 */
export const nothingWire: Translation<object> = { toWire: () => ({}), fromWire: () => ({}) };

export const heatCallWire: Translation<{ idOrGuest: string; cells: number }> = {
  toWire: (call) => call,
  fromWire: (wire) => {
    const given = object(wire, "request");
    const cells = number(given.cells, "cells") || HEAT_CELLS;
    if (cells < 1 || cells > HEAT_CELLS_MAX) throw wrong("cells", cells, `from 1 to ${HEAT_CELLS_MAX}`);
    return { idOrGuest: shortText(given.idOrGuest, "id_or_guest"), cells };
  },
};

export const heatMapWire: Translation<readonly HeatMapBlock[]> = {
  toWire: (blocks) => ({ blocks }),
  fromWire: (wire) =>
    list(object(wire, "answer").blocks, "blocks").map((one) => ({
      name: text(one.name, "name"),
      pagesPerCell: number(one.pagesPerCell, "pages_per_cell"),
      cells: bytes(one.cells, "cells"),
    })),
};

export const resolveCallWire: Translation<ResolveCall> = {
  toWire: (call) => ({ ...call }),
  fromWire: (wire) => {
    const given = object(wire, "request");
    const keep = given.keep;
    if (keep !== "source" && keep !== "destination") throw wrong("keep", keep, "source or destination");
    return { id: shortText(given.id, "id"), keep, confirmed: flag(given.confirmed) };
  },
};

/** A message that has one migration in it. */
export const migrationWire: Translation<MigrationView> = {
  toWire: (view) => ({ migration: viewToWire(view) }),
  fromWire: (wire) => viewFromWire(object(object(wire, "answer").migration, "migration")),
};

export const migrationsWire: Translation<readonly MigrationView[]> = {
  toWire: (views) => ({ migrations: views.map(viewToWire) }),
  fromWire: (wire) => list(object(wire, "answer").migrations, "migrations").map(viewFromWire),
};

const viewToWire = (view: MigrationView): object => ({ ...view, status: STATUSES[view.status] });

function viewFromWire(given: WireObject): MigrationView {
  const status = Object.entries(STATUSES).find(([, wire]) => wire === given.status)?.[0];
  if (!isStatus(status)) throw malformed("status", `is ${String(given.status)}`);
  const view = {
    id: text(given.id, "id"),
    guest: text(given.guest, "guest"),
    destination: text(given.destination, "destination"),
    status,
    startedAtMs: number(given.startedAtMs, "started_at_ms"),
    negotiated: textMap(given.negotiated),
    progress: progress(object(given.progress, "progress")),
  };
  // an agent of an earlier version has no such field
  const source = text(given.source ?? "", "source");
  const error = given.error ? errorView(object(given.error, "error")) : undefined;
  const result = given.result ? resultView(object(given.result, "result")) : undefined;
  return {
    ...view,
    ...(source === "" ? {} : { source }),
    ...defined({ error, result }),
  };
}

const isStatus = (name: string | undefined): name is MigrationStatus =>
  name !== undefined && Object.hasOwn(STATUSES, name);

export const reasons = (wire: unknown): readonly Refusal[] =>
  list(wire, "reasons").map((one) => ({ code: codeText(one.code), message: text(one.message, "message") }));

const errorView = (given: WireObject) => ({
  code: codeText(given.code),
  message: text(given.message, "message"),
  guestNow: text(given.guestNow, "guest_now"),
  advice: text(given.advice, "advice"),
  refusals: reasons(given.refusals),
});

/** Reads the numbers `names`, all of which the message must have. */
export function readNumbers<Name extends string>(given: WireObject, names: readonly Name[]): Record<Name, number> {
  const read = new Map<string, number>();
  for (const name of names) read.set(name, number(given[name], name));
  return fromEntries(names, (name) => read.get(name) ?? 0);
}

function fromEntries<Name extends string>(names: readonly Name[], value: (name: Name) => number): Record<Name, number> {
  return names.reduce((made, name) => Object.assign(made, { [name]: value(name) }), emptyRecord<Name>());
}

/** Makes an empty record, which fromEntries() fills with every name before it is read. */
function emptyRecord<Name extends string>(): Record<Name, number> {
  return Object.create(null);
}

const PROGRESS = [
  "elapsedSeconds",
  "guestMemoryBytes",
  "passes",
  "bytesSent",
  "bytesPerSecond",
  "estimatedResidualBytes",
  "estimatedDowntimeMs",
  "pagesPending",
  "pagesHeld",
  "firstPassFraction",
  "dirtyBytesPerSecond",
  "roundTripMs",
  "linkDownSeconds",
  "downtimeTargetMs",
  "stalledSeconds",
] as const;
const DOWNTIME = ["totalMs", "lastPagesMs", "deviceStateMs", "loadMs", "verifyMs", "commitMs", "clockErrorMs"] as const;
const BYTES = ["total", "zero", "full", "delta", "device", "other"] as const;
const PAGES = ["captured", "zero", "full", "delta", "coalesced", "skipped"] as const;
const RESULT = [
  "totalSeconds",
  "deltaRatio",
  "zstdRatio",
  "bitmapSyncs",
  "sourceAgentCpuSeconds",
  "destinationAgentCpuSeconds",
  "sourceAgentPeakMemoryBytes",
  "destinationAgentPeakMemoryBytes",
  "pagesCompared",
  "stalledSeconds",
] as const;

const progress = (given: WireObject): Progress => ({
  ...readNumbers(given, PROGRESS),
  heatClasses: numbers(given.heatClasses, "heat classes"),
  ...(given.etaSeconds === undefined ? {} : { etaSeconds: number(given.etaSeconds, "eta_seconds") }),
});

const POSTCOPY = [
  "seconds",
  "requestedPages",
  "serviceMedianMs",
  "serviceP99Ms",
  "serviceMaxMs",
  "repeatedPages",
] as const;

const resultView = (given: WireObject): MigrationResult => ({
  ...readNumbers(given, RESULT),
  completed: flag(given.completed),
  downtime: readNumbers(object(given.downtime, "downtime"), DOWNTIME),
  bytes: readNumbers(object(given.bytes, "bytes"), BYTES),
  pages: readNumbers(object(given.pages, "pages"), PAGES),
  switchReason: text(given.switchReason, "switch reason"),
  verified: flag(given.verified),
  paused: flag(given.paused),
  degradations: strings(given.degradations, "degradations"),
  verifyExceptions: strings(given.verifyExceptions, "verify_exceptions"),
  ...(given.postcopy === undefined || given.postcopy === null
    ? {}
    : { postcopy: readNumbers(object(given.postcopy, "postcopy"), POSTCOPY) }),
});
