/** Tests that what the tests do to a network happens to it, and nothing else. */
import { existsSync } from "node:fs";
import t from "tap";
import { eventually } from "./bounded.ts";
import { canMakeNamespaces, loopbackNetwork, namespaceNetwork } from "./network.ts";
import { RigProcess } from "./process.ts";

const SOON = { timeoutMs: 10_000 };
const NUMBERS = 20;

/** A program that sends numbers to the other end over UDP, and prints the numbers that it has sent and got. */
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
  "setSending() loses what one end sends, while what the other end sends arrives",
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
    // by the time the other direction has carried more, what was on its way has come
    await arrives(b!, a!, "numbers from a");
    const before = last(a!, "got");
    await arrives(b!, a!, "numbers from a, still");
    t.equal(last(a!, "got"), before, "nothing that b sends arrives");
    await network.setSending("b", true);
    await Promise.all([arrives(a!, b!, "numbers from b again"), arrives(b!, a!, "numbers from a as before")]);

    await network.setSending("a", true);
    await arrives(b!, a!, "numbers from an end that was whole");
  },
);

/**
 * A program that answers whatever comes, or that asks ten times and prints the shortest time to an answer,
 * milliseconds.
 */
const ECHO = `
  const [role, own, other] = process.argv.slice(1);
  const socket = require("node:dgram").createSocket("udp4");
  let [sent, at, shortest] = [0, 0, Infinity];
  const send = () => { at = performance.now(); socket.send("x".repeat(100), 9999, other); };
  socket.on("error", () => undefined);
  socket.on("message", (text) => {
    if (role === "answers") return socket.send(text, 9999, other);
    shortest = Math.min(shortest, performance.now() - at);
    if (++sent < 10) return send();
    console.log("shortest " + shortest);
    socket.close();
  });
  socket.bind(9999, own, () => { if (role === "answers") console.log("ready"); else send(); });
`;

t.test(
  "a cable with a length delays packets at every rate, with and without shaping, and is removed with its network",
  {
    skip: !(canMakeNamespaces() && existsSync("/dev/net/tun")) && "it takes root and tun interfaces",
  },
  async (t) => {
    const network = await namespaceNetwork({ bitsPerSecond: 1e9, roundTripMs: 20 });
    t.teardown(() => network.close());
    const start = (role: "asks" | "answers"): Promise<RigProcess> => {
      const [own, other] = role === "asks" ? [network.a, network.b] : [network.b, network.a];
      const command = [...own.prefix, process.execPath, "-e", ECHO, role, own.address, other.address];
      return RigProcess.start({ name: role, command });
    };
    const answers = await start("answers");
    t.teardown(() => answers.stop());
    await answers.waitForOutput(/ready/, SOON);
    const shortest = async (): Promise<number> => {
      const asks = await start("asks");
      t.teardown(() => asks.stop());
      return Number((await asks.waitForOutput(/shortest (\S+)/, SOON))[1]);
    };
    const before = await network.wireBytes();
    for (const bits of [1e9, Number.POSITIVE_INFINITY, 1e8]) {
      await network.setRate(bits);
      const ms = await shortest();
      t.ok(ms >= 20 && ms < 1000, `${ms.toFixed(1)} ms there and back at ${bits} bit/s`);
    }
    t.ok((await network.wireBytes()) - before >= 3 * 2000, "the bytes on the cable are counted");
    await t.rejects(network.setSending("a", false), { name: "RangeError" });
    await network.close();
    t.same(await network.leftovers(), []);
  },
);

t.test("the loopback refuses to lose what one end sends", async (t) => {
  await t.rejects(loopbackNetwork().setSending("a", false), { name: "RangeError" });
});
