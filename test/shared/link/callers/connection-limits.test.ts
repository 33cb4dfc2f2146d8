/** Tests how long connections may stay, and how many handshakes begin in which time. The sockets are not connected. */
import { Socket } from "node:net";
import t from "tap";
import { CONNECTION_DEFAULTS, ConnectionLimits } from "../../../../shared/link/callers/connection-limits.ts";
import type { ConnectionConfig } from "../../../../shared/runtime/config/config-network.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const HOUR_MS = 3_600_000;
const HANDSHAKE = "/ferry.v1.DestinationService/Handshake";
const ANY = "/ferry.v1.MigrationService/ListMigrations";
const PEER = "198.51.100.7";

interface Limited {
  readonly clock: FakeClock;
  readonly limits: ConnectionLimits;
  /** What the log was told of connections that were ended, by line. */
  readonly lines: object[];
  /** Lets a connection come from an address, for TLS unless another standing is said. */
  come(address: string, first?: "shaking" | "clear"): Came;
}

interface Came {
  readonly socket: Socket;
  /** Its address and port, as gRPC shows it. */
  readonly peer: string;
  /** True once it was its turn. */
  hasBegun: boolean;
}

function limited(changes: Partial<ConnectionConfig> = {}): Limited {
  const clock = new FakeClock();
  const lines: object[] = [];
  const limits = new ConnectionLimits(
    { ...CONNECTION_DEFAULTS, ...changes },
    { warn: (line: object) => void lines.push(line) },
    clock,
  );
  let port = 1024;
  const come: Limited["come"] = (address, first = "shaking") => {
    port++;
    const socket = new Socket();
    Object.defineProperties(socket, { remoteAddress: { value: address }, remotePort: { value: port } });
    const came: Came = { socket, peer: `${address}:${port}`, hasBegun: false };
    limits.receive(socket, first, () => {
      came.hasBegun = true;
    });
    return came;
  };
  return { clock, limits, lines, come };
}

const begun = (all: readonly Came[]): number => all.filter(({ hasBegun }) => hasBegun).length;

/** Addresses of as many networks. */
const strangers = (count: number): string[] => Array.from({ length: count }, (_, one) => `192.0.2.${one}`);

t.test("a handshake that is not done within ten seconds ends", async (t) => {
  const { clock, come } = limited();
  const { socket, hasBegun } = come("192.0.2.1");
  t.ok(hasBegun);
  await clock.advance(9000);
  t.notOk(socket.destroyed);
  await clock.advance(2000);
  t.ok(socket.destroyed);
});

t.test("a stranger's connection ends after ten seconds, and a connection in clear has no end", async (t) => {
  const { clock, limits, come } = limited();
  const stranger = come("192.0.2.1");
  t.ok(limits.shaken(stranger.socket, "stranger"));
  const clear = come("192.0.2.2", "clear");
  await clock.advance(9000);
  t.notOk(stranger.socket.destroyed);
  await clock.advance(2000);
  t.ok(stranger.socket.destroyed);
  await clock.advance(HOUR_MS);
  t.notOk(clear.socket.destroyed);
});

t.test("a listed caller's connection lives for its time, and a minute longer while a call is under way", async (t) => {
  const { clock, limits, come } = limited();
  const [idle, busy] = [come(PEER), come(PEER)];
  for (const { socket } of [idle, busy]) t.ok(limits.shaken(socket, "listed", HOUR_MS, "beta"));
  const counted = limits.of(busy.peer);
  if (counted === undefined) throw new Error("the connection is not counted");
  counted.calls++;
  await clock.advance(HOUR_MS - 1000);
  t.notOk(idle.socket.destroyed);
  await clock.advance(2000);
  t.ok(idle.socket.destroyed);
  t.notOk(busy.socket.destroyed);
  await clock.advance(60_000);
  t.ok(busy.socket.destroyed);
});

t.test("a connection that carries a migration has no limit, until the transfer is over", async (t) => {
  const { clock, limits, come } = limited();
  const { socket, peer } = come(PEER);
  limits.shaken(socket, "listed", HOUR_MS, "beta");
  const letGo = limits.hold(peer);
  await clock.advance(5 * HOUR_MS);
  t.notOk(socket.destroyed);
  letGo();
  await clock.advance(1000);
  t.ok(socket.destroyed);
});

t.test("of unknown networks 16 handshakes begin at once, and then 50 a second", async (t) => {
  const { clock, limits, come } = limited();
  const all = strangers(60).map((address) => come(address));
  t.equal(begun(all), 16);
  // a handshake that is done makes room for the next one
  for (const one of all) if (one.hasBegun) limits.shaken(one.socket, "listed", HOUR_MS, one.peer);
  await clock.advance(200);
  t.equal(begun(all), 26);
  for (const one of all) if (one.hasBegun) limits.shaken(one.socket, "listed", HOUR_MS, one.peer);
  await clock.advance(400);
  t.equal(begun(all), 46);
});

t.test("a connection whose turn does not come within ten seconds ends", async (t) => {
  const { clock, limits, come } = limited({ handshakesPerSecond: 1 });
  const all = strangers(30).map((address) => come(address));
  for (let second = 0; second < 12; second++) {
    for (const one of all) if (one.hasBegun) limits.shaken(one.socket, "listed", HOUR_MS, one.peer);
    await clock.advance(1000);
  }
  t.ok(begun(all) >= 10 && begun(all) <= 12, `${begun(all)} have begun`);
  for (const { hasBegun, socket } of all) t.equal(socket.destroyed, !hasBegun);
});

t.test("a server that stops ends the connections that wait for their turn", async (t) => {
  const { clock, limits, come } = limited();
  const all = strangers(20).map((address) => come(address));
  limits.stop();
  for (const { hasBegun, socket } of all) t.equal(socket.destroyed, !hasBegun);
  t.equal(clock.pending, 0, "no timer is left");
});

t.test("for an hour after a listed caller has come, its network has turns of its own", async (t) => {
  const { clock, limits, come } = limited();
  const spend = (): void => {
    for (const address of strangers(100)) come(address);
  };
  limits.shaken(come(PEER).socket, "listed", HOUR_MS, "beta");
  await clock.advance(HOUR_MS - 1000);
  spend();
  t.ok(come(PEER).hasBegun, "strangers have taken all turns of unknown networks");
  await clock.advance(20_000);
  spend();
  t.notOk(come(PEER).hasBegun, "the network is not familiar any more");
});

t.test("a caller makes 100 calls at once and then 50 a second, 40 and 5 of them handshakes", async (t) => {
  const { clock, limits, come } = limited();
  const rates = limits.of(come(PEER).peer)?.rates;
  const calls = (method: string): number =>
    Array.from({ length: 200 }).filter(() => rates?.take(method) === true).length;
  t.equal(calls(ANY), 100);
  await clock.advance(1000);
  t.equal(calls(ANY), 50);
  await clock.advance(HOUR_MS);
  t.equal(calls(ANY), 100, "no more are saved up");
  await clock.advance(HOUR_MS);
  t.equal(calls(HANDSHAKE), 40);
  await clock.advance(4000);
  t.equal(calls(HANDSHAKE), 20);
});

t.test("a name has no more calls by having more connections", async (t) => {
  const { limits, come } = limited();
  const handshakes = (address: string, name: string): number => {
    const { socket, peer } = come(address);
    limits.shaken(socket, "listed", HOUR_MS, name);
    return Array.from({ length: 30 }).filter(() => limits.of(peer)?.rates.take(HANDSHAKE) === true).length;
  };
  t.same([handshakes(PEER, "beta"), handshakes("192.0.2.7", "beta"), handshakes("192.0.2.8", "beta")], [30, 10, 0]);
  t.equal(handshakes("192.0.2.9", "gamma"), 30, "another name has its own");
});

t.test("the log tells once a minute at most how many connections were ended, and why", async (t) => {
  const { clock, limits, lines, come } = limited();
  const end = (count: number): void => {
    for (const address of strangers(count)) {
      const counted = limits.of(come(address, "clear").peer);
      if (counted !== undefined) limits.end(counted);
    }
  };
  end(5);
  t.same(lines, [{ ended: { tooMany: 1 } }], "the first one has a line at once");
  come("192.0.2.1");
  await clock.advance(59_000);
  t.equal(lines.length, 1);
  await clock.advance(1000);
  t.same(lines[1], { ended: { tooMany: 4, tooLong: 1 } });
  await clock.advance(HOUR_MS);
  t.equal(lines.length, 2, "nothing was ended since");
});
