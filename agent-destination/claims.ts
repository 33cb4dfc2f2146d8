/**
 * Hands an operator's words to the state of a waiting guest that asks for one. A word that comes when no state asks is
 * dropped.
 */
import { type Deferred, deferred } from "../shared/runtime/deferred.ts";
import type { Claim } from "./destination-context.ts";

export class Claims {
  private asked: Deferred<Claim> | undefined;

  /**
   * Begins to wait for a word. A word that was said before is forgotten.
   * @returns the next word that is said
   */
  ask(): Promise<Claim> {
    this.asked = deferred();
    return this.asked.promise;
  }

  forget(): void {
    this.asked = undefined;
  }

  /**
   * Says a word to the state that asks.
   * @returns false when no state asks, or another word came first; the word then has no effect
   */
  say(claim: Claim): boolean {
    const { asked } = this;
    this.asked = undefined;
    asked?.resolve(claim);
    return asked !== undefined;
  }
}
