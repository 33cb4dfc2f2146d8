/**
 * Says words that an operator should not say, or not at that agent, to a migration that is in doubt at its source, and
 * checks what comes of them.
 */
import type { Attempt, Word } from "./attempt.ts";
import type { FaultRig } from "./fault-rig.ts";
import type { Words } from "./faults.ts";

const SETTLES_MS = 20_000;

/** Says the words. @returns what is wrong with the answers */
export async function sayWords(on: FaultRig, attempt: Attempt, words: Words): Promise<readonly string[]> {
  switch (words) {
    case "contrary": {
      const both = await Promise.all([attempt.resolve("source", "source"), attempt.resolve("source", "destination")]);
      const taken = both.filter(({ code }) => code === 0);
      return taken.length === 1
        ? []
        : [`of two contrary words ${taken.length} were taken: ${both.map(told).join("; ")}`];
    }
    case "late": {
      const first = await attempt.resolve("source", "source");
      await attempt.settle({ timeoutMs: SETTLES_MS, doubtIsEnd: false });
      const late = await attempt.resolve("source", "destination");
      return [...(first.code === 0 ? [] : [told(first)]), ...refused(late, /not-in-doubt|not-resolvable/)];
    }
    case "wrong host": {
      const { id = "" } = attempt;
      const word = ["resolve", id, "--keep", "source", "--yes"];
      const unknown = [
        await attempt.say(attempt.to, "source", word),
        await attempt.say(attempt.from, "destination", word),
      ];
      return unknown.flatMap((one) => refused(one, /migration-unknown/));
    }
    case "unconfirmed": {
      const both = [await attempt.resolve("source", "source", []), await attempt.resolve("source", "destination", [])];
      return both.flatMap((one) => refused(one, /needs-confirmation/));
    }
    case "wrong": {
      if (!on.watch.hasRun(attempt.to, attempt.startedUs)) return ["the guest does not run at the destination"];
      const word = await attempt.resolve("source", "source");
      return word.code === 0 || word.code === 5 ? [] : [told(word)];
    }
  }
}

const refused = (word: Word, why: RegExp): readonly string[] =>
  word.code !== 0 && why.test(word.output) ? [] : [`it was to be refused (${why.source}): ${told(word)}`];

const told = ({ words, code, output }: Word): string => `${words} ended with ${code}: ${output.slice(-300)}`;
