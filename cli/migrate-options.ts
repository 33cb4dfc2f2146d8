/** The options of `ferry migrate` and `ferry plan`, and the calls to the agent that are made from them. */
import { type Command, Option } from "commander";
import { parseAddress } from "../shared/address.ts";
import { MigrationFault } from "../shared/fault.ts";
import { DEADLINE_ACTIONS, STRATEGIES } from "../shared/protocol/messages.ts";
import { OBSERVE_MS_MAX, type PlanCall } from "../shared/protocol/plan-view.ts";
import type { MigrateCall, MigrateOptions } from "../shared/protocol/report.ts";
import { refuseWish } from "../shared/protocol/strategies.ts";
import { parseByteRate, parseDuration } from "../shared/quantities.ts";
import { argument } from "./context.ts";

/**
 * The options that both commands have, parsed. Durations are in milliseconds, and the bandwidth is in bytes per second.
 */
export interface GivenMigrateOptions {
  readonly to: string;
  readonly strategy: MigrateOptions["strategy"];
  readonly downtime?: number;
  readonly deadline?: number;
  readonly onDeadline: MigrateOptions["onDeadline"];
  readonly bandwidth?: number;
  readonly delta: boolean;
  readonly reorder: boolean;
  readonly compression: MigrateOptions["compression"];
  readonly verify: boolean;
  readonly sharedDisksUnchecked: boolean;
  readonly robust: boolean;
}

export function addMigrateOptions(command: Command): Command {
  return command
    .hook("preAction", (_, action) => checkTogether(action))
    .addOption(
      new Option("--to <address>", `destination agent: "host:port" or "unix:PATH"`)
        .argParser(argument(destination))
        .makeOptionMandatory(),
    )
    .option(
      "--strategy <name>",
      `auto, ${STRATEGIES.join(", ")}; a paused guest is always copied once, and stays paused`,
      argument(strategy),
      "auto",
    )
    .option(
      "--downtime <duration>",
      "longest pause to aim for (default: the agent's, 300ms)",
      argument(atLeast1(parseDuration)),
    )
    .option(
      "--deadline <duration>",
      "when to stop waiting for a good moment (default: never)",
      argument(atLeast1(parseDuration)),
    )
    .option(
      "--on-deadline <action>",
      "at the deadline: cancel, force the switchover, or postcopy: run there and fetch the rest",
      argument(deadlineAction),
      "cancel",
    )
    .option("--bandwidth <rate>", `cap, as "1Gbit" or "100MB/s" (default: none)`, argument(atLeast1(parseByteRate)))
    .option("--no-delta", "send changed pages whole")
    .option("--no-reorder", "send pages in the order in which QEMU gives them")
    .option("--compression <level>", "auto, off, or a zstd level from -50 to 19", argument(compression), "auto")
    .option("--verify", "compare all memory before the handover; the guest is stopped meanwhile", false)
    .option(
      "--shared-disks-unchecked",
      "go on where nobody can prove that both hosts have the same disks; you answer for them",
      false,
    )
    .option("--robust", "keep the source whole until the grant: no post-copy, whatever it would save", false);
}

/** The options of `ferry plan`, and of `ferry migrate` when it is to plan first. */
export interface GivenPlanOptions extends GivenMigrateOptions {
  /**
   * How long to look at the guest, milliseconds; false with `--no-observe`. Where it is undefined, `ferry plan` looks
   * for OBSERVE_MS, and `ferry migrate` makes no plan.
   */
  readonly observe?: number | false;
}

/** How long a plan looks at the guest when `--observe` is not given, milliseconds. */
const OBSERVE_MS = 5000;

/** Adds the options of a plan. @param observe the help text of `--observe`, which the two commands word differently */
export function addPlanOptions(command: Command, observe: string): Command {
  return command.option("--observe <duration>", observe, argument(observation));
}

export function planCall(guest: string, given: GivenPlanOptions): PlanCall {
  const { observe = OBSERVE_MS } = given;
  return { migration: migrateCall(guest, given), observeMs: observe === false ? 0 : observe };
}

export function migrateCall(guest: string, given: GivenMigrateOptions): MigrateCall {
  return {
    guest,
    to: given.to,
    options: {
      strategy: given.strategy,
      // 0 stands for the agent's own default
      downtimeTargetMs: given.downtime ?? 0,
      deadlineMs: given.deadline ?? 0,
      onDeadline: given.onDeadline,
      bandwidthBytesPerSecond: given.bandwidth ?? 0,
      delta: given.delta,
      reorder: given.reorder,
      compression: given.compression,
      verify: given.verify,
      sharedDisksUnchecked: given.sharedDisksUnchecked,
      robust: given.robust,
    },
  };
}

/** Reports options that cannot be given together as a usage error, before any agent is asked. */
function checkTogether(command: Command): void {
  const { strategy, deadline = 0, onDeadline, verify, robust } = command.opts<GivenMigrateOptions>();
  for (const { message } of refuseWish({ strategy, deadlineMs: deadline, onDeadline, verify, robust }))
    command.error(`error: ${message}`);
}

const invalid = (text: string, what: string): MigrationFault =>
  new MigrationFault("invalid-argument", `"${text}" is not ${what}`);

function destination(text: string): string {
  parseAddress(text);
  return text;
}

function strategy(text: string): MigrateOptions["strategy"] {
  const known = text === "auto" ? text : STRATEGIES.find((one) => one === text);
  if (known === undefined) throw invalid(text, `a strategy: auto, ${STRATEGIES.join(", ")}`);
  return known;
}

function deadlineAction(text: string): MigrateOptions["onDeadline"] {
  const known = DEADLINE_ACTIONS.find((one) => one === text);
  if (known === undefined) throw invalid(text, `what can be done at the deadline: ${DEADLINE_ACTIONS.join(", ")}`);
  return known;
}

function compression(text: string): MigrateOptions["compression"] {
  if (text === "auto" || text === "off") return text;
  const level = Number(text);
  if (!/^-?\d{1,2}$/.test(text) || level < -50 || level > 19)
    throw invalid(text, "auto, off or a zstd level from -50 to 19");
  return level;
}

function observation(text: string): number {
  const ms = parseDuration(text);
  if (ms < 100 || ms > OBSERVE_MS_MAX) throw invalid(text, `from 100ms to ${OBSERVE_MS_MAX / 1000}s`);
  return ms;
}

const atLeast1 =
  (parse: (text: string) => number) =>
  (text: string): number => {
    const value = parse(text);
    if (value < 1) throw invalid(text, "greater than 0");
    return value;
  };
