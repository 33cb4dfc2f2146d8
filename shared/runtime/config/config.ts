/**
 * Loads the configuration of the agents in three stages: the values that are given (in the file, then in the
 * environment, then on the command line), these values laid over the defaults (convict), and the compiled form. Only
 * the compiled form leaves this file: its units are converted, its paths are absolute and checked, and it is frozen.
 */
import { readFileSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import convict from "convict";
import { MigrationFault } from "../../fault.ts";
import { parseByteSize, parseDuration } from "../../quantities.ts";
import { atLeast, between, invalid, oneOf } from "../config-checks.ts";
import { privateDirectory } from "../files/private-directory.ts";
import { checkSocketPaths } from "../files/runtime-sockets.ts";
import { LOG_LEVELS, type LogLevel } from "../log/log.ts";
import { FAULT_FORMS, isFaultName } from "../test-faults.ts";
import { packageVersion } from "../version.ts";
import { FORMATS } from "./config-formats.ts";
import { checkFileKeys, fromArguments, fromEnvironment, helpText, listKeys } from "./config-keys.ts";
import {
  type ConnectionConfig,
  checkAddresses,
  connections,
  type GivenConnections,
  type GivenTls,
  socketPath,
  type TlsConfig,
  tlsConfig,
} from "./config-network.ts";
import { destinationSchema, type SchemaTree, sourceSchema } from "./config-schema.ts";

convict.addFormats(FORMATS);

/** What both agents are configured with. config-schema.ts documents each key. */
export interface CommonConfig {
  readonly listen: readonly string[];
  /** Empty where the agent listens for no other agent. */
  readonly advertise: string;
  /** Undefined where the operators of this host have no socket. */
  readonly operatorSocketPath: string | undefined;
  /** Empty for the agent's own group. */
  readonly operatorGroup: string;
  readonly guestsDirectory: string;
  readonly runtimeDirectory: string;
  readonly stateDirectory: string;
  readonly logLevel: LogLevel;
  /** True when the agent warms up before its first migration. */
  readonly rehearsal: boolean;
  readonly tlsInsecure: boolean;
  /** Undefined where everything is in clear; TCP is then used only with `tlsInsecure`. */
  readonly tls: TlsConfig | undefined;
  /** The most migrations at the same time. */
  readonly migrationsMax: number;
  readonly operatorStreamsMax: number;
  readonly connections: ConnectionConfig;
  readonly qmpTimeoutMs: number;
  readonly shutdownGraceMs: number;
  readonly link: LinkConfig;
  /** The faults that a test asks for by name (test-faults.ts). */
  readonly faults: readonly string[];
}

interface LinkConfig {
  readonly giveUpAfterMs: number;
  readonly keepAliveMs: number;
}

/** What a source agent is configured with. config-schema.ts documents each key. */
export interface SourceConfig extends CommonConfig {
  /** Empty where every destination is allowed. */
  readonly destinationsAllowed: readonly string[];
  readonly memory: {
    readonly baseCacheBytes: number;
    readonly arenaBytes: number;
    readonly keep: "auto" | "on" | "off";
  };
  readonly transfer: {
    readonly frameBytes: number;
    readonly creditWindowBytes: number;
    /** How many times a second QEMU sends the dirtied pages and syncs its dirty bitmap, after the first pass. */
    readonly syncRate: number;
    readonly zstdWorkers: number;
  };
  readonly link: LinkConfig & { readonly finalGiveUpAfterMs: number; readonly doubtAfterMs: number };
  readonly onShutdown: "abort" | "finish";
  readonly downtimeTargetMs: number;
  readonly handshakeTimeoutMs: number;
}

/** What a destination agent is configured with. config-schema.ts documents each key. */
export interface DestinationConfig extends CommonConfig {
  /**
   * Directories from which a source may have files put into removable drives: absolute paths, in which symbolic links
   * are not resolved yet.
   */
  readonly mediaDirectories: readonly string[];
  readonly receiveWindowBytes: number;
  readonly qemuStartTimeoutMs: number;
  readonly qemuScope: "auto" | "on" | "off";
  readonly followUpMs: number;
  readonly memoryReserveBytes: number;
  readonly link: LinkConfig & { readonly byHand: boolean };
}

const SOURCE_SUMMARY = "Ferry's source agent: sends the guests of this host elsewhere.";
const DESTINATION_SUMMARY = "Ferry's destination agent: receives guests on this host.";

/** @returns the text that --help or --version asks for; undefined when neither was given */
export function askedFor(role: "source" | "destination", argv: readonly string[]): string | undefined {
  if (argv.includes("--version")) return `ferry-${role} ${packageVersion()}\n`;
  if (!argv.includes("--help")) return undefined;
  return role === "source"
    ? helpText("ferry-source", SOURCE_SUMMARY, sourceSchema())
    : helpText("ferry-destination", DESTINATION_SUMMARY, destinationSchema());
}

/**
 * Loads the configuration of a source agent.
 * @param argv the arguments without node and the program
 * @throws MigrationFault `configuration`
 */
export function loadSourceConfig(argv: readonly string[], env: NodeJS.ProcessEnv): SourceConfig {
  const schema = sourceSchema();
  const config = convict(schema, { env: {}, args: [] });
  fill(config, schema, argv, env);
  const given = config.getProperties();
  const { memory, transfer } = given;
  return Object.freeze({
    ...common("source", given),
    destinationsAllowed: Object.freeze([...given.destinations.allowed]),
    memory: Object.freeze({
      baseCacheBytes: parseByteSize(memory.baseCache),
      arenaBytes: atLeast("memory.arena", parseByteSize(memory.arena), 1 << 20, "bytes"),
      keep: oneOf("memory.keep", memory.keep, ["auto", "on", "off"]),
    }),
    transfer: Object.freeze({
      frameBytes: between("transfer.frameBytes", parseByteSize(transfer.frameBytes), 16 << 10, 4 << 20, "bytes"),
      creditWindowBytes: atLeast("transfer.creditWindow", parseByteSize(transfer.creditWindow), 64 << 10, "bytes"),
      syncRate: between("transfer.syncRate", transfer.syncRate, 1, 1000),
      zstdWorkers: between("transfer.zstdWorkers", transfer.zstdWorkers, 0, 64),
    }),
    link: Object.freeze({
      ...link(given.link),
      finalGiveUpAfterMs: atLeast("link.finalGiveUpAfter", parseDuration(given.link.finalGiveUpAfter), 1, "ms"),
      doubtAfterMs: atLeast("link.doubtAfter", parseDuration(given.link.doubtAfter), 1, "ms"),
    }),
    onShutdown: oneOf("shutdown.migrations", given.shutdown.migrations, ["abort", "finish"]),
    downtimeTargetMs: atLeast("migration.downtime", parseDuration(given.migration.downtime), 1, "ms"),
    handshakeTimeoutMs: atLeast("handshake.timeout", parseDuration(given.handshake.timeout), 1, "ms"),
  });
}

/**
 * Loads the configuration of a destination agent.
 * @param argv the arguments without node and the program
 * @throws MigrationFault `configuration`
 */
export function loadDestinationConfig(argv: readonly string[], env: NodeJS.ProcessEnv): DestinationConfig {
  const schema = destinationSchema();
  const config = convict(schema, { env: {}, args: [] });
  fill(config, schema, argv, env);
  const given = config.getProperties();
  return Object.freeze({
    ...common("destination", given),
    mediaDirectories: Object.freeze(given.guests.media.map(mediaDirectory)),
    receiveWindowBytes: between("receiveWindow", parseByteSize(given.receiveWindow), 64 << 10, 2 ** 31 - 1, "bytes"),
    qemuStartTimeoutMs: atLeast("qemu.startTimeout", parseDuration(given.qemu.startTimeout), 1, "ms"),
    qemuScope: oneOf("qemu.scope", given.qemu.scope, ["auto", "on", "off"]),
    followUpMs: atLeast("followUp", parseDuration(given.followUp), 1, "ms"),
    memoryReserveBytes: parseByteSize(given.memory.reserve),
    link: Object.freeze({ ...link(given.link), byHand: given.link.byHand }),
  });
}

/** The part of a convict configuration that does not depend on its keys. */
interface Fillable {
  load(given: object): unknown;
  set(path: string, value: string): unknown;
  validate(options: { allowed: "strict" }): unknown;
}

/**
 * Fills `config`: puts what the file, the environment and the command line give over the defaults, and checks each
 * value against its format.
 */
function fill(config: Fillable, schema: SchemaTree, argv: readonly string[], env: NodeJS.ProcessEnv): void {
  const keys = listKeys(schema);
  const flags = fromArguments(keys, argv);
  const environment = fromEnvironment(keys, env);
  const file = flags.file ?? env.FERRY_CONFIG;
  const inFile = file === undefined ? {} : readFile(file, schema);
  try {
    config.load(inFile);
    for (const [path, value] of [...environment, ...flags.values]) config.set(path, value);
    config.validate({ allowed: "strict" });
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("configuration", `The configuration is not valid: ${reason}`, { advice: "See --help" });
  }
}

function readFile(file: string, schema: SchemaTree): object {
  let given: unknown;
  try {
    given = JSON.parse(readFileSync(file, "utf8"));
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("configuration", `Cannot read the configuration ${file}: ${reason}`, { cause: thrown });
  }
  return checkFileKeys(given, schema, file);
}

/** The settings of both agents with the defaults filled in, in the form in which the operator writes them. */
interface GivenCommon {
  listen: string[];
  advertise: string;
  guests: { directory: string };
  runtimeDirectory: string;
  stateDirectory: string;
  log: { level: string };
  rehearsal: boolean;
  tls: GivenTls;
  migrations: { max: number };
  operators: { socket: string; group: string; maxStreams: number };
  connections: GivenConnections;
  qmp: { timeout: string };
  shutdown: { grace: string };
  link: { giveUpAfter: string; keepAlive: string };
  faults: string[];
}

function common(role: "source" | "destination", given: GivenCommon): CommonConfig {
  const advertise = given.advertise === "" ? (given.listen[0] ?? "") : given.advertise;
  const tls = tlsConfig(given.tls);
  checkAddresses(given.listen, advertise, tls === undefined ? (given.tls.insecure ? "insecure" : "none") : "tls");
  checkSocketPaths(role, resolve(given.runtimeDirectory), given.rehearsal);
  const operatorSocketPath = socketPath(given.operators.socket, resolve(given.runtimeDirectory));
  return {
    listen: Object.freeze([...given.listen]),
    advertise,
    operatorSocketPath,
    operatorGroup: given.operators.group,
    guestsDirectory: resolve(given.guests.directory),
    runtimeDirectory: privateDirectory("runtimeDirectory", given.runtimeDirectory),
    stateDirectory: privateDirectory("stateDirectory", given.stateDirectory),
    logLevel: LOG_LEVELS.find((level) => level === given.log.level) ?? "info",
    rehearsal: given.rehearsal,
    tlsInsecure: given.tls.insecure,
    tls,
    migrationsMax: between("migrations.max", given.migrations.max, 1, 1000),
    operatorStreamsMax: between("operators.maxStreams", given.operators.maxStreams, 1, 10_000),
    connections: Object.freeze(connections(given.connections)),
    qmpTimeoutMs: atLeast("qmp.timeout", parseDuration(given.qmp.timeout), 1, "ms"),
    shutdownGraceMs: parseDuration(given.shutdown.grace),
    link: Object.freeze(link(given.link)),
    faults: Object.freeze(given.faults.map(faultName)),
  };
}

const link = (given: GivenCommon["link"]): LinkConfig => ({
  giveUpAfterMs: atLeast("link.giveUpAfter", parseDuration(given.giveUpAfter), 1, "ms"),
  keepAliveMs: between("link.keepAlive", parseDuration(given.keepAlive), 100, 60_000, "ms"),
});

/** Checks one directory of `guests.media`. */
function mediaDirectory(given: string): string {
  if (isAbsolute(given) && resolve(given) !== "/") return resolve(given);
  throw invalid("guests.media", `has ${JSON.stringify(given)}`, "Name directories by absolute paths, but not /");
}

function faultName(name: string): string {
  if (isFaultName(name)) return name;
  throw invalid("faults", `has ${JSON.stringify(name)}`, `The faults for tests are ${FAULT_FORMS.join(", ")}`);
}
