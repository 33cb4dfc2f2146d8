/**
 * Hands the operator's words to the states that ask for them. Each doubt asks for a word of its own; a word that comes
 * when no state asks is dropped.
 */
import { type Deferred, deferred } from "../shared/runtime/deferred.ts";

export type Word = "source" | "destination";

/** The states that ask for a word (shared/protocol/source-states.ts). */
export type Asker = "inDoubt" | "orphaned" | "doubled";

export class OperatorWords {
  /** The state that asks; undefined while no state waits for a word. */
  asker: Asker | undefined;
  /** Counts the doubts: a word that was checked for one is not one for the next. */
  turn = 0;
  private asked: Deferred<Word> | undefined;

  /**
   * Begins to wait for a word. A word that was said before is forgotten.
   * @returns the next word that is said
   */
  ask(asker: Asker): Promise<Word> {
    this.asker = asker;
    this.turn++;
    this.asked = deferred();
    return this.asked.promise;
  }

  /** Stops waiting for a word. */
  forget(): void {
    this.asker = undefined;
    this.asked = undefined;
  }

  /**
   * Says a word to the state that asks.
   * @returns false when no state asks, or another word came first; the word then has no effect
   */
  say(word: Word): boolean {
    const { asked } = this;
    this.forget();
    asked?.resolve(word);
    return asked !== undefined;
  }
}
