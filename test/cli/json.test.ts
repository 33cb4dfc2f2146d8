/** Tests what a terminal gets of `--json`. */
import t from "tap";
import { jsonLine } from "../../cli/json.ts";

t.test("characters on which a terminal acts are escaped, and the line means the same", async (t) => {
  const value = { guest: "web\u009b31m", error: "\u202egnp.exe\u007f", bytes: Uint8Array.of(1, 2) };
  const line = jsonLine(value);
  t.equal(line, '{"guest":"web\\u009b31m","error":"\\u202egnp.exe\\u007f","bytes":[1,2]}\n');
  t.same(JSON.parse(line), { ...value, bytes: [1, 2] });
});
