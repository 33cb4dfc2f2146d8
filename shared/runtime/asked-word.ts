/** Lets a state of a migration wait for an operator's word. A word that is said while no state asks is dropped. */
import { type Deferred, deferred } from "./deferred.ts";

export class AskedWord<Word> {
  private asked: Deferred<Word> | undefined;

  /**
   * Begins to wait for a word. A word that was said earlier does not count.
   * @returns the next word that is said
   */
  ask(): Promise<Word> {
    this.asked = deferred();
    return this.asked.promise;
  }

  /** Stops waiting for a word. The promise of the last ask() then never resolves. */
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
