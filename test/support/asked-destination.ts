/**
 * A destination agent that is offered guests (`Handshake`) and asked how migrations stand (`Settle`), and answers as a
 * test wants. It has no transfer stream.
 */
import type { Test } from "tap";
import { serveDestination } from "../../shared/link/grpc/grpc-server.ts";
import type { HandshakeAnswer, Offer } from "../../shared/protocol/messages.ts";
import type { SettleAnswer, SettleCall } from "../../shared/protocol/stream-messages.ts";
import { eventually } from "./bounded.ts";
import { LIMITS, SERVE } from "./link.ts";

export { LIMITS };

/** An answer, or only its standing. */
export type Answer = SettleAnswer["standing"] | SettleAnswer;

export class AskedDestination {
  /** Where the destination listens. */
  readonly address: string;
  /** All calls so far, in order. */
  readonly calls: SettleCall[] = [];
  /** Gives the answer to a call. A test may put another function here. */
  answer: (call: SettleCall) => Answer | Promise<Answer> = () => "unknown";
  /** All offers so far, in order. */
  readonly offers: Offer[] = [];
  /** Gives the answer to an offer. A test may put another function here. */
  agree: (offer: Offer) => HandshakeAnswer | Promise<HandshakeAnswer> = () => {
    throw new TypeError("an offer was not expected");
  };
  /** Called with each call when it has come and before it is answered. */
  onCall: (call: SettleCall) => void = () => undefined;
  private readonly closed: () => Promise<unknown>;

  static async serve(t: Test): Promise<AskedDestination> {
    let asked: AskedDestination | undefined;
    const handshake = async (offer: Offer): Promise<HandshakeAnswer> => {
      if (asked === undefined) throw new TypeError("not ready");
      asked.offers.push(offer);
      return await asked.agree(offer);
    };
    const settle = async (call: SettleCall): Promise<SettleAnswer> => {
      if (asked === undefined) throw new TypeError("not ready");
      asked.calls.push(call);
      asked.onCall(call);
      const answer = await asked.answer(call);
      return typeof answer === "string" ? { standing: answer, reason: "so it is" } : answer;
    };
    const listener = await serveDestination({ handshake, settle }, SERVE);
    asked = new AskedDestination(listener.address, () => listener.close(0));
    t.teardown(() => asked?.close());
    return asked;
  }

  private constructor(address: string, closed: () => Promise<unknown>) {
    this.address = address;
    this.closed = closed;
  }

  /** What the destination was asked, in order. */
  get asked(): readonly SettleCall["ask"][] {
    return this.calls.map(({ ask }) => ask);
  }

  /** From now on gives these answers in turn, and then the last of them again and again. */
  answersInTurn(answers: readonly Answer[]): void {
    const left = [...answers];
    this.answer = () => (left.length > 1 ? left.shift() : left[0]) ?? "unknown";
  }

  /** Waits until there were `count` calls. */
  async untilAsked(count: number, { timeoutMs = 10_000 } = {}): Promise<void> {
    const isAsked = (): true | undefined => (this.calls.length >= count ? true : undefined);
    await eventually(isAsked, { timeoutMs, what: `question ${count} to the destination` });
  }

  /** Closes the server, so that the destination cannot be asked any more. */
  async close(): Promise<void> {
    await this.closed();
  }
}
