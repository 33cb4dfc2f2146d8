/**
 * Hands the operator's words to the states that ask for them. Each doubt asks for a word of its own; a word that comes
 * when no state asks is dropped.
 */
import { AskedWord } from "../../shared/runtime/asked-word.ts";

/** An operator's word: the host whose copy of the guest is to live. */
export type Word = "source" | "destination";

/** The states that ask for a word (shared/protocol/source-states.ts). */
export type Asker = "inDoubt" | "orphaned" | "doubled";

export class OperatorWords {
  /** The state that asks; undefined while no state waits for a word. */
  asker: Asker | undefined;
  /** How many times a state has asked. A word that was checked for one doubt does not count for the next. */
  turn = 0;
  private readonly word = new AskedWord<Word>();

  /** Begins to wait for a word (AskedWord.ask). */
  ask(asker: Asker): Promise<Word> {
    this.asker = asker;
    this.turn++;
    return this.word.ask();
  }

  /** Stops waiting for a word. */
  forget(): void {
    this.asker = undefined;
    this.word.forget();
  }

  /** Says a word to the state that asks. @returns false when no state asks, so that the word has no effect */
  say(word: Word): boolean {
    this.asker = undefined;
    return this.word.say(word);
  }

  /**
   * Asks for a word while `settle` may settle the state too. Whichever comes first, the word or the result of `settle`,
   * is returned, and ends the wait for the other.
   * @param leaving aborted when the agent leaves
   * @param settle must reject when its signal is aborted
   */
  async askBeside<T>(
    asker: Asker,
    leaving: AbortSignal,
    settle: (signal: AbortSignal) => Promise<T>,
  ): Promise<T | Word> {
    const over = new AbortController();
    const settled = settle(AbortSignal.any([leaving, over.signal]));
    settled.catch(() => undefined);
    return await Promise.race([settled, this.ask(asker)]).finally(() => {
      over.abort();
      this.forget();
    });
  }
}
