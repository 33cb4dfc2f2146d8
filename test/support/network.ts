/**
 * The network of two hosts: two namespaces that a cable joins, a veth pair or a cable with a length, shaped with tc.
 * Nothing of it is seen from outside, so there may be many side by side. Where namespaces may not be made, the loopback
 * takes their place, without shaping and with one address.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type Cable, joinEnds } from "./cable.ts";
import { run } from "./process.ts";
import { atTeardown } from "./teardown.ts";

/**
 * The least bucket of the token-bucket filter, bytes. Measured at 1 Gbit/s with one TCP connection: 32 KiB gives 110
 * MB/s of payload, and 128 KiB or more gives 119.6 MB/s, which is what the link carries. A larger bucket only lets
 * bursts through.
 */
const BURST_BYTES = 128 << 10;
/** The bucket has at least as much as comes in this time, since the filter looks at its clock no more often. */
const BURST_SECONDS = 1e-3;
/** How long a packet may wait in the shaper. One TCP connection needs no more. */
const QUEUE_MS = 20;
/** A hardware address that no interface has. The other interface drops packets to it, so they are lost. */
const NOBODY = "02:00:00:00:00:99";

interface NetworkEnd {
  readonly address: string;
  /** The words with which a command line begins, so that it runs at this end. */
  readonly prefix: readonly string[];
  readonly interfaceName: string;
}

interface NamespaceEnd extends NetworkEnd {
  readonly namespace: string;
}

export interface TestNetwork {
  readonly kind: "namespaces" | "loopback";
  readonly a: NetworkEnd;
  readonly b: NetworkEnd;
  /** How many bytes have crossed the link so far in both directions, counted by the interface of end a. */
  wireBytes(): Promise<number>;
  /** Changes the rate of the link in both directions. Infinity is no shaping. The loopback ignores this. */
  setRate(bitsPerSecond: number): Promise<void>;
  /** Cuts the cable, or mends it. @throws RangeError on the loopback, which cannot be cut */
  setConnected(connected: boolean): Promise<void>;
  /**
   * Loses everything that one end sends, or lets it arrive again. What the other end sends arrives.
   * @throws RangeError on the loopback and with a cable that has a length, which cannot do that
   */
  setSending(end: "a" | "b", sending: boolean): Promise<void>;
  close(): Promise<void>;
  /** Lists what is left of the network, in words. */
  leftovers(): Promise<readonly string[]>;
}

let opened = 0;

/** True if this program may make namespaces: it is root, and `ip` and `tc` are there. */
export function canMakeNamespaces(): boolean {
  const tool = (name: string): boolean =>
    (process.env.PATH ?? "").split(":").some((folder) => existsSync(`${folder}/${name}`));
  return process.getuid?.() === 0 && tool("ip") && tool("tc");
}

export interface NetworkOptions {
  readonly bitsPerSecond: number;
  /** The delay of both directions together, milliseconds. Without it there are some hundredths of one. @default 0 */
  readonly roundTripMs?: number;
}

/** The name of an interface has at most 15 characters. It is inside a namespace, so it need not be unique. */
const endOf = (unique: string, side: "a" | "b"): NamespaceEnd => ({
  namespace: `ferry-${unique}-${side}`,
  address: side === "a" ? "10.73.0.1" : "10.73.0.2",
  prefix: ["ip", "netns", "exec", `ferry-${unique}-${side}`],
  interfaceName: `ferry-${side}`,
});

/** Makes a network of namespaces. @throws Error when it cannot be made; no namespace is left then */
export async function namespaceNetwork({ bitsPerSecond, roundTripMs = 0 }: NetworkOptions): Promise<TestNetwork> {
  opened += 1;
  const unique = `${process.pid.toString(36)}-${opened}`;
  const [a, b] = [endOf(unique, "a"), endOf(unique, "b")];
  const ends = [a, b];
  const forget = atTeardown(() => {
    for (const end of ends) if (hasNamespace(end.namespace)) execFileSync("ip", ["netns", "del", end.namespace]);
  });
  let cable: Cable | undefined;
  const close = async (): Promise<void> => {
    await cable?.remove();
    // a veth pair goes with either of its ends
    for (const end of ends) if (hasNamespace(end.namespace)) await run(["ip", "netns", "del", end.namespace]);
    forget();
  };
  const shape = shaperOf(ends);
  try {
    for (const end of ends) await run(["ip", "netns", "add", end.namespace]);
    cable = await joinEnds(a, b, roundTripMs);
    for (const end of ends) {
      const ip = ["ip", "-n", end.namespace];
      await run([...ip, "addr", "add", `${end.address}/30`, "dev", end.interfaceName]);
      await run([...ip, "link", "set", "lo", "up"]);
      await run([...ip, "link", "set", end.interfaceName, "up"]);
    }
    await shape(bitsPerSecond);
  } catch (thrown) {
    await close();
    throw thrown;
  }
  return {
    kind: "namespaces",
    a,
    b,
    wireBytes: async () => {
      const files = ["rx_bytes", "tx_bytes"].map((name) => `/sys/class/net/${a.interfaceName}/statistics/${name}`);
      // the namespace's /sys is seen only from within the namespace
      const counted = await run([...a.prefix, "cat", ...files]);
      return sum(counted.trim().split("\n"));
    },
    setRate: shape,
    setConnected: async (connected) => {
      await run(["ip", "-n", a.namespace, "link", "set", a.interfaceName, connected ? "up" : "down"]);
      if (!connected) return;
      // an end that asked for the other's hardware address in vain asks again at once, and not after another second
      for (const end of ends) await run(["ip", "-n", end.namespace, "neigh", "flush", "dev", end.interfaceName]);
    },
    setSending: async (end, sending) => {
      if (roundTripMs > 0) throw new RangeError("a delayed cable has no neighbours to mislead");
      await mislead(end === "a" ? [a, b] : [b, a], !sending);
    },
    close,
    leftovers: async () => ends.filter((end) => hasNamespace(end.namespace)).map((end) => `namespace ${end.namespace}`),
  };
}

/** Makes what changes the rate of both directions, bits per second; infinity is no shaping. */
function shaperOf(ends: readonly NamespaceEnd[]): (rate: number) => Promise<void> {
  let isShaped = false;
  return async (rate) => {
    const burst = Math.max(BURST_BYTES, Math.round((rate / 8) * BURST_SECONDS));
    const filter = ["tbf", "rate", `${Math.round(rate)}bit`, "burst", `${burst}`, "latency", `${QUEUE_MS}ms`];
    const willBe = Number.isFinite(rate);
    if (!isShaped && !willBe) return;
    const verb = !willBe ? "del" : isShaped ? "change" : "add";
    for (const end of ends) {
      const root = ["dev", end.interfaceName, "root", ...(willBe ? filter : [])];
      await run(["tc", "-n", end.namespace, "qdisc", verb, ...root]);
    }
    isShaped = willBe;
  };
}

/** Makes one end send to a hardware address that nobody has, or ends that. */
async function mislead([from, to]: readonly [NamespaceEnd, NamespaceEnd], misled: boolean): Promise<void> {
  const entry = [to.address, "dev", from.interfaceName];
  const neighbour = ["ip", "-n", from.namespace, "neigh"];
  if (misled) await run([...neighbour, "replace", ...entry, "lladdr", NOBODY, "nud", "permanent"]);
  // if nothing was broken, there is no entry or a good one, and nothing is changed
  else if ((await run([...neighbour, "show", ...entry])).includes(NOBODY)) await run([...neighbour, "del", ...entry]);
}

/** Makes a network in which both ends are this host. */
export function loopbackNetwork(): TestNetwork {
  const end: NetworkEnd = { address: "127.0.0.1", prefix: [], interfaceName: "lo" };
  return {
    kind: "loopback",
    a: end,
    b: end,
    // what is sent over lo is received over lo, so one of the two counters has both directions
    wireBytes: async () => Number(await readFile("/sys/class/net/lo/statistics/tx_bytes", "utf8")),
    setRate: async () => {},
    setConnected: () => Promise.reject(new RangeError("the loopback cannot be cut")),
    setSending: () => Promise.reject(new RangeError("the loopback cannot be cut")),
    close: async () => {},
    leftovers: async () => [],
  };
}

const hasNamespace = (name: string): boolean => existsSync(`/run/netns/${name}`);

const sum = (numbers: readonly string[]): number => numbers.reduce((total, text) => total + Number(text), 0);
