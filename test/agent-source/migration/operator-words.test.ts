/** Tests `OperatorWords`: each doubt takes one word of its own. */
import t from "tap";
import { OperatorWords } from "../../../agent-source/migration/operator-words.ts";

t.test("the first word is taken by the doubt that asks, and every other word is dropped", async (t) => {
  const words = new OperatorWords();
  t.equal(words.say("source"), false, "no doubt asks yet");
  const asked = words.ask("inDoubt");
  t.equal(words.asker, "inDoubt");
  t.equal(words.say("destination"), true);
  t.equal(words.say("source"), false, "the other word came too late");
  t.equal(words.asker, undefined);
  t.equal(await asked, "destination");
});

t.test("a word is not used again by the next doubt", async (t) => {
  const words = new OperatorWords();
  const first = words.ask("inDoubt");
  words.say("destination");
  await first;
  const second = words.ask("doubled");
  const late = new Promise((resolve) => setImmediate(() => resolve("nothing")));
  t.equal(await Promise.race([second, late]), "nothing");
  t.equal(words.say("source"), true);
  t.equal(await second, "source");
});

t.test("a doubt that was settled without a word takes no word afterwards", async (t) => {
  const words = new OperatorWords();
  void words.ask("orphaned");
  words.forget();
  t.equal(words.asker, undefined);
  t.equal(words.say("source"), false);
});
