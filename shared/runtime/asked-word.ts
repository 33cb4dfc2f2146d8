/** A word of an operator, for a state that asks for one. A word that comes when no state asks is dropped. */
import { type Deferred, deferred } from "./deferred.ts";

export class AskedWord<Word> {
  private asked: Deferred<Word> | undefined;

  /**
   * Begins to wait for a word. A word that was said before is forgotten.
   * @returns the next word that is said
   */
  ask(): Promise<Word> {
    this.asked = deferred();
    return this.asked.promise;
  }

  /** Stops waiting for a word. */
  forget(): void {
    this.asked = undefined;
  }

  /**
   * Says a word to the state that asks.
   * @returns false when no state asks, or another word came first; the word then has no effect
   */
  say(word: Word): boolean {
    const { asked } = this;
    this.asked = undefined;
    asked?.resolve(word);
    return asked !== undefined;
  }
}
