/** Each state takes one word of its own. */
import t from "tap";
import { AskedWord } from "../../../shared/runtime/asked-word.ts";

t.test("the first word that is asked for is heard, and no other one", async (t) => {
  const claims = new AskedWord<"here" | "end">();
  t.equal(claims.say("here"), false, "nothing asks yet");
  const asked = claims.ask();
  t.equal(claims.say("end"), true);
  t.equal(claims.say("here"), false);
  t.equal(await asked, "end");
  void claims.ask();
  claims.forget();
  t.equal(claims.say("here"), false, "nothing asks any more");
});
