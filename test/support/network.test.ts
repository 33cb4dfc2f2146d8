/** What the tests do to a link happens to it, and nothing else. */
import t from "tap";
import { eventually } from "./bounded.ts";
import { canMakeNamespaces, loopbackNetwork, namespaceNetwork } from "./network.ts";
import { RigProcess } from "./process.ts";

const SOON = { timeoutMs: 10_000 };
const NUMBERS = 20;

/** Sends numbers to the other end over UDP, and tells those that it sent and got. */
const PROGRAM = `
  const [own, other] = process.argv.slice(1);
  const socket = require("node:dgram").createSocket("udp4");
  let number = 0;
  socket.on("message", (text) => console.log("got " + text));
  socket.on("error", () => undefined);
  socket.bind(9999, own, () =>
    setInterval(() => {
      number += 1;
      socket.send(String(number), 9999, other, () => undefined);
      console.log("sent " + number);
    }, 10));
`;

const last = (process: RigProcess, word: string): number =>
  Number([...process.output().matchAll(new RegExp(`^${word} (\\d+)$`, "gm"))].at(-1)?.[1] ?? 0);

t.test(
  "what one end sends is lost while it may not send, and what the other sends arrives",
  {
    skip: !canMakeNamespaces() && "it takes root to make namespaces",
  },
  async (t) => {
    const network = await namespaceNetwork({ bitsPerSecond: 1e9 });
    t.teardown(() => network.close());
    const [a, b] = await Promise.all(
      [network.a, network.b].map((end) =>
        RigProcess.start({
          name: `numbers at ${end.address}`,
          command: [
            ...end.prefix,
            process.execPath,
            ...["-e", PROGRAM, end.address, (end === network.a ? network.b : network.a).address],
          ],
        }),
      ),
    );
    t.teardown(() => Promise.all([a!.stop(), b!.stop()]));
    const arrives = (at: RigProcess, from: RigProcess, what: string): Promise<true> => {
      const fresh = last(from, "sent") + NUMBERS;
      return eventually(() => (last(at, "got") > fresh ? true : undefined), { ...SOON, what });
    };
    await Promise.all([arrives(a!, b!, "numbers from b"), arrives(b!, a!, "numbers from a")]);

    await network.setSending("b", false);
    // what was on its way has come when the other direction has carried more
    await arrives(b!, a!, "numbers from a");
    const before = last(a!, "got");
    await arrives(b!, a!, "numbers from a, still");
    t.equal(last(a!, "got"), before, "nothing of what b sends arrives");
    await network.setSending("b", true);
    await Promise.all([arrives(a!, b!, "numbers from b again"), arrives(b!, a!, "numbers from a as before")]);

    await network.setSending("a", true);
    await arrives(b!, a!, "numbers from an end that was whole");
  },
);

t.test("a loopback cannot be cut", async (t) => {
  await t.rejects(loopbackNetwork().setSending("a", false), { name: "RangeError" });
});
