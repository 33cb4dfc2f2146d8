/**
 * Decides which strategies a migration may use: which of them the source offers, and which of these the destination can
 * do as well (docs/design/planning.md#strategies-in-the-handshake). Which strategy is the best for a guest is not
 * decided here (shared/model/).
 */
import type { Refusal } from "../fault.ts";
import { PAGE_SIZE } from "../units.ts";
import type { Contract, DeadlineAction, GuestOffer, Offer, RamBlock, Strategy, TransferOffer } from "./messages.ts";

/** The first protocol version with post-copy. Agents of version 1 say nothing about strategies. */
export const POSTCOPY_PROTOCOL = 2;

/** What an operator or an offer asks for. */
export interface Wish {
  readonly strategy: Strategy | "auto";
  /** Milliseconds. 0: there is no deadline. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
  readonly verify: boolean;
  /** True if the source is to stay whole until the grant, so that the loss of one host never loses the guest. */
  readonly robust: boolean;
}

/** Tells whether a strategy may run the guest at the destination before all of its memory is there. */
export const isPostcopy = (strategy: Strategy | "auto"): boolean => strategy === "postcopy" || strategy === "hybrid";

/** Tells whether a migration may go into post-copy, by its strategy or at its deadline. */
export const needsPostcopy = ({
  strategy,
  deadlineMs,
  onDeadline,
}: Pick<Wish, "strategy" | "deadlineMs" | "onDeadline">): boolean =>
  isPostcopy(strategy) || (deadlineMs > 0 && onDeadline === "postcopy");

/**
 * Gives the same wish without post-copy, for a guest that stands still and so gains nothing by it. If the guest runs
 * after all, it is moved as by precopy.
 */
export const withoutPostcopy = (wish: Wish): Wish => ({
  ...wish,
  strategy: isPostcopy(wish.strategy) ? "precopy" : wish.strategy,
  onDeadline: wish.onDeadline === "postcopy" ? "cancel" : wish.onDeadline,
});

/**
 * Tells whether a migration that begins as precopy may go into post-copy later, where both hosts can: the agents then
 * choose the strategy while the guest is copied (agent-source/switchover/auto-choice.ts).
 * @param paused true if the guest stands still, which gains nothing by post-copy
 */
export const postcopyMayFollow = ({ strategy, verify, robust }: Wish, paused: boolean): boolean =>
  strategy === "auto" && !verify && !robust && !paused;

/** Tells whether an offer needs post-copy, or has it among the strategies that may be chosen. */
export const asksForPostcopy = (transfer: TransferOffer): boolean =>
  needsPostcopy(transfer) || transfer.strategies.some(isPostcopy);

/**
 * Gives the protocol versions to offer. Versions without post-copy are left out for a wish that needs post-copy. A
 * destination that speaks only versions without post-copy then refuses the versions together with its other reasons.
 */
export const versionsFor = (wish: Wish, versions: readonly number[]): readonly number[] =>
  needsPostcopy(wish) ? versions.filter((version) => version >= POSTCOPY_PROTOCOL) : versions;

/**
 * Gives the strategies to offer: the one that is wished for; or, with "auto", all that the source can do, but for
 * post-copy where the memory is to be verified.
 * @param able the strategies that the source can do with this guest
 */
export function offeredStrategies({ strategy, verify, robust }: Wish, able: readonly Strategy[]): readonly Strategy[] {
  if (strategy !== "auto") return [strategy];
  return verify || robust ? able.filter((one) => !isPostcopy(one)) : able;
}

/** Gives the reasons for which a wish cannot be fulfilled on any hosts. */
export function refuseWish(wish: Wish): readonly Refusal[] {
  if (!needsPostcopy(wish)) return [];
  return [...(wish.verify ? [POSTCOPY_VERIFY] : []), ...(wish.robust ? [POSTCOPY_ROBUST] : [])];
}

const POSTCOPY_ROBUST: Refusal = {
  code: "postcopy-robust",
  message:
    "In post-copy the guest needs both hosts until its last page has come, which --robust excludes; leave out --robust or post-copy",
};

const POSTCOPY_VERIFY: Refusal = {
  code: "postcopy-verify",
  message:
    "In post-copy the guest runs at the destination before its memory is there, so it cannot be compared first; leave out --verify or post-copy",
};

/** What the destination knows that decides about post-copy. */
export interface PostcopyFacts {
  /** The protocol version that both agents speak; undefined where there is none. */
  readonly version: number | undefined;
  /** What the destination's own waiting QEMU says, where one could be started. */
  readonly guest?: Pick<GuestOffer, "ramBlocks">;
  /** Why that QEMU cannot go into post-copy. */
  readonly postcopyRefusal?: Refusal;
}

/** Gives every reason against post-copy; none for an offer that does not ask for post-copy. */
export function postcopyObstacles({ transfer, guest }: Offer, mine: PostcopyFacts): readonly Refusal[] {
  if (!asksForPostcopy(transfer)) return [];
  const obstacles: Refusal[] = [];
  const { version, postcopyRefusal } = mine;
  if (version !== undefined && version < POSTCOPY_PROTOCOL)
    obstacles.push({
      code: "postcopy-protocol",
      message: `Post-copy needs protocol ${POSTCOPY_PROTOCOL}; source and destination have ${version} in common; upgrade the older agent`,
    });
  if (transfer.verify) obstacles.push(POSTCOPY_VERIFY);
  obstacles.push(...refuseHugePages(guest.ramBlocks, "source"));
  if (mine.guest !== undefined) obstacles.push(...refuseHugePages(mine.guest.ramBlocks, "destination"));
  if (postcopyRefusal !== undefined) obstacles.push(postcopyRefusal);
  return obstacles;
}

function refuseHugePages(blocks: readonly RamBlock[], role: "source" | "destination"): readonly Refusal[] {
  const huge = blocks.filter((block) => block.pageSize !== PAGE_SIZE);
  if (huge.length === 0) return [];
  const names = huge.map((block) => `${block.name} ${block.pageSize}`).join(", ");
  return [
    {
      code: "postcopy-huge-pages",
      message: `Post-copy is built for pages of ${PAGE_SIZE} bytes; RAM blocks of the ${role} have others: ${names}; use precopy, or memory without huge pages`,
    },
  ];
}

type Agreed = Pick<Contract, "strategies" | "strategy" | "postcopy" | "onDeadline" | "postcopyObstacle">;

/**
 * Chooses among the offered strategies.
 * @param obstacles every reason against post-copy
 * @returns undefined where these reasons leave nothing of what was asked for
 */
export function agreeOnStrategies({ transfer }: Offer, obstacles: readonly Refusal[]): Agreed | undefined {
  const strategies = transfer.strategies.filter((one) => obstacles.length === 0 || !isPostcopy(one));
  const strategy = transfer.strategy === "auto" ? automatic(strategies) : transfer.strategy;
  if (strategy === undefined || !strategies.includes(strategy)) return undefined;
  const { deadlineMs, onDeadline } = transfer;
  const isNeeded = needsPostcopy({ strategy, deadlineMs, onDeadline });
  if (isNeeded && obstacles.length > 0) return undefined;
  const postcopy = isNeeded || (transfer.postcopyMayFollow && strategies.some(isPostcopy));
  return { strategies, strategy, postcopy, onDeadline, postcopyObstacle: textOf(obstacles) };
}

/** Makes the refusal of an offer of which no strategy is left, although nothing speaks against post-copy. */
export const noStrategy = ({ transfer }: Offer): Refusal => ({
  code: "strategy",
  message: `The source asks for strategy ${transfer.strategy} and offers ${transfer.strategies.join(", ") || "none"}; bring both agents to the same version`,
});

/** Chooses the strategy with which a migration begins when its operator leaves the choice to the agents. */
const automatic = (strategies: readonly Strategy[]): Strategy | undefined =>
  strategies.includes("precopy") ? "precopy" : strategies[0];

/**
 * Completes the contract of a destination of protocol 1 with the strategies. Such a destination says nothing about
 * them: it does what the source does, and cannot tell one strategy of the source from another.
 */
export function completeContract(offer: Offer, contract: Contract): Contract {
  const { protocolVersion: version } = contract;
  if (version >= POSTCOPY_PROTOCOL) return contract;
  const agreed = agreeOnStrategies(offer, postcopyObstacles(offer, { version }));
  return agreed === undefined ? contract : { ...contract, ...agreed };
}

/** Says in words what a contract has beyond the offer, as far as strategies are concerned. */
export function beyondOffer({ transfer }: Offer, contract: Contract): readonly string[] {
  const wrong: string[] = [];
  const { strategies, strategy, onDeadline, postcopy } = contract;
  for (const one of strategies) if (!transfer.strategies.includes(one)) wrong.push(`strategy ${one}`);
  if (!strategies.includes(strategy) || (transfer.strategy !== "auto" && strategy !== transfer.strategy))
    wrong.push(`strategy ${strategy} to begin with, of ${transfer.strategy} that was offered`);
  if (onDeadline !== transfer.onDeadline)
    wrong.push(`${onDeadline} at the deadline, of ${transfer.onDeadline} that was offered`);
  const needed = needsPostcopy({ strategy, deadlineMs: transfer.deadlineMs, onDeadline });
  // a destination of an older version does not know that post-copy may follow, and then it does not
  if (needed && !postcopy) wrong.push("no post-copy, which is needed");
  if (postcopy && !needed && !transfer.postcopyMayFollow) wrong.push("post-copy, which nothing needs");
  return wrong;
}

const textOf = (refusals: readonly Refusal[]): string => refusals.map((one) => one.message).join("; ");
