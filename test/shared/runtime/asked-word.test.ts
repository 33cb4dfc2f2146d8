/** Tests that each state takes one operator's word of its own. */
import t from "tap";
import { AskedWord } from "../../../shared/runtime/asked-word.ts";

t.test("the first word that is asked for is taken, and no other word", async (t) => {
  const claims = new AskedWord<"here" | "end">();
  t.equal(claims.say("here"), false, "no state asks yet");
  const asked = claims.ask();
  t.equal(claims.say("end"), true);
  t.equal(claims.say("here"), false);
  t.equal(await asked, "end");
  void claims.ask();
  claims.forget();
  t.equal(claims.say("here"), false, "no state asks any more");
});
