/** Which strategies a migration may use: what the source offers of them, and what is left of it at the destination. */
import type { Refusal } from "../fault.ts";
import { PAGE_SIZE } from "../units.ts";
import type { Contract, DeadlineAction, GuestOffer, Offer, RamBlock, Strategy, TransferOffer } from "./messages.ts";

/** The first protocol version with post-copy; before it the agents said nothing of strategies. */
export const POSTCOPY_PROTOCOL = 2;

/** What is wished for: by an operator, or in an offer. */
export interface Wish {
  readonly strategy: Strategy | "auto";
  /** 0: none. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
  readonly verify: boolean;
}

/** Does it run the guest before all of its memory is there? */
export const isPostcopy = (strategy: Strategy | "auto"): boolean => strategy === "postcopy" || strategy === "hybrid";

/** May the migration go into post-copy: by its strategy, or at its deadline? */
export const needsPostcopy = ({ strategy, deadlineMs, onDeadline }: Omit<Wish, "verify">): boolean =>
  isPostcopy(strategy) || (deadlineMs > 0 && onDeadline === "postcopy");

/** The same wish of a guest whose memory need not be chased; should it run after all, it is moved as by precopy. */
export const withoutPostcopy = (wish: Wish): Wish => ({
  ...wish,
  strategy: isPostcopy(wish.strategy) ? "precopy" : wish.strategy,
  onDeadline: wish.onDeadline === "postcopy" ? "cancel" : wish.onDeadline,
});

/** Does it matter whether there is post-copy: is it needed, or one of what may be chosen? */
export const asksForPostcopy = (transfer: TransferOffer): boolean =>
  needsPostcopy(transfer) || transfer.strategies.some(isPostcopy);

/** The older version is offered only where it will do: a destination that has no other says so with its other reasons. */
export const versionsFor = (wish: Wish, versions: readonly number[]): readonly number[] =>
  needsPostcopy(wish) ? versions.filter((version) => version >= POSTCOPY_PROTOCOL) : versions;

/** What to offer: the strategy that is wished for, or of `able` all that may be chosen among. */
export function offeredStrategies({ strategy, verify }: Wish, able: readonly Strategy[]): readonly Strategy[] {
  if (strategy !== "auto") return [strategy];
  return verify ? able.filter((one) => !isPostcopy(one)) : able;
}

/** Why a wish cannot be, whatever the hosts are like. */
export function refuseWish(wish: Wish): readonly Refusal[] {
  return wish.verify && needsPostcopy(wish) ? [POSTCOPY_VERIFY] : [];
}

const POSTCOPY_VERIFY: Refusal = {
  code: "postcopy-verify",
  message:
    "In post-copy the guest runs at the destination before its memory is there, so it cannot be compared first; leave out --verify or post-copy",
};

export interface PostcopyFacts {
  /** In common; undefined where there is none. */
  readonly version: number | undefined;
  /** Of the destination's own waiting QEMU, when one could be started. */
  readonly guest?: Pick<GuestOffer, "ramBlocks">;
  /** Why that QEMU cannot go into post-copy. */
  readonly postcopyRefusal?: Refusal;
}

/** All that stands in the way of post-copy, where the offer is about it. */
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

/** @returns undefined where the obstacles leave nothing of what was wished for */
export function agreeOnStrategies({ transfer }: Offer, obstacles: readonly Refusal[]): Agreed | undefined {
  const strategies = transfer.strategies.filter((one) => obstacles.length === 0 || !isPostcopy(one));
  const strategy = transfer.strategy === "auto" ? automatic(strategies) : transfer.strategy;
  if (strategy === undefined || !strategies.includes(strategy)) return undefined;
  const { deadlineMs, onDeadline } = transfer;
  const postcopy = needsPostcopy({ strategy, deadlineMs, onDeadline });
  if (postcopy && obstacles.length > 0) return undefined;
  return { strategies, strategy, postcopy, onDeadline, postcopyObstacle: textOf(obstacles) };
}

export const noStrategy = ({ transfer }: Offer): Refusal => ({
  code: "strategy",
  message: `The source asks for strategy ${transfer.strategy} and offers ${transfer.strategies.join(", ") || "none"}; bring both agents to the same version`,
});

/** With which a migration begins that leaves it to the agents. */
const automatic = (strategies: readonly Strategy[]): Strategy | undefined =>
  strategies.includes("precopy") ? "precopy" : strategies[0];

/** A destination of protocol 1 says nothing of strategies: it does what the source does, and cannot tell one from another. */
export function completeContract(offer: Offer, contract: Contract): Contract {
  const { protocolVersion: version } = contract;
  if (version >= POSTCOPY_PROTOCOL) return contract;
  const agreed = agreeOnStrategies(offer, postcopyObstacles(offer, { version }));
  return agreed === undefined ? contract : { ...contract, ...agreed };
}

/** What of a contract's strategies was not offered, in words. */
export function beyondOffer({ transfer }: Offer, contract: Contract): readonly string[] {
  const wrong: string[] = [];
  const { strategies, strategy, onDeadline, postcopy } = contract;
  for (const one of strategies) if (!transfer.strategies.includes(one)) wrong.push(`strategy ${one}`);
  if (!strategies.includes(strategy) || (transfer.strategy !== "auto" && strategy !== transfer.strategy))
    wrong.push(`strategy ${strategy} to begin with, of ${transfer.strategy} that was offered`);
  if (onDeadline !== transfer.onDeadline)
    wrong.push(`${onDeadline} at the deadline, of ${transfer.onDeadline} that was offered`);
  const needed = needsPostcopy({ strategy, deadlineMs: transfer.deadlineMs, onDeadline });
  if (postcopy !== needed) wrong.push(postcopy ? "post-copy, which nothing needs" : "no post-copy, which is needed");
  return wrong;
}

const textOf = (refusals: readonly Refusal[]): string => refusals.map((one) => one.message).join("; ");
