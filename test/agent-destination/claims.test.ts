/** Each state of a destination takes one word of its own. */
import t from "tap";
import { Claims } from "../../agent-destination/claims.ts";

t.test("the first word that is asked for is heard, and no other one", async (t) => {
  const claims = new Claims();
  t.equal(claims.say("here"), false, "nothing asks yet");
  const asked = claims.ask();
  t.equal(claims.say("end"), true);
  t.equal(claims.say("here"), false);
  t.equal(await asked, "end");
  void claims.ask();
  claims.forget();
  t.equal(claims.say("here"), false, "nothing asks any more");
});
