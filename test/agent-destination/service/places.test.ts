/** Tests what a host has left for one more guest. */
import t from "tap";
import type { DestinationState } from "../../../agent-destination/migration/destination-state.ts";
import type { Incoming } from "../../../agent-destination/service/incoming.ts";
import { Places } from "../../../agent-destination/service/places.ts";
import { stillToTake } from "../../../agent-destination/service/promised-memory.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { LIMITS } from "../../support/link.ts";
import { security, TestCa } from "../../support/tls.ts";

const ca = new TestCa(t.testdir()).make("alpha", "beta");
const secured = { ...LIMITS, security: security(ca.material("alpha"), { peers: ["alpha", "beta", "gamma", "delta"] }) };
const caller = (name: string) => ({ name, names: [name], text: name });

interface Held {
  readonly guest: string;
  readonly caller?: string;
  readonly sequence?: number;
  readonly takes?: number;
}

function setUp(held: readonly Held[], migrationsMax = 4, limits = secured) {
  const dropped: string[] = [];
  const ends = deferred<void>();
  const entries = new Map(
    held.map(({ guest, caller, sequence = 1, takes = 0 }) => {
      const entry = {
        cx: { id: guest, guest, caller, sequence },
        state: { kind: "receiving" },
        ended: ends.promise,
        drop: () => void dropped.push(guest),
        stillToTake: async () => takes,
      };
      return [guest, entry as unknown as Incoming];
    }),
  );
  return { places: new Places({ config: { migrationsMax }, limits } as never, entries), entries, dropped, ends };
}

const of = (...callers: string[]): Held[] => callers.map((caller, index) => ({ guest: `g${index}`, caller }));

t.test("the last free place is kept for a peer that has no place", async (t) => {
  const busy = { code: "busy", message: /beta has 3 of the destination's 4 places .* for another peer/ };
  t.throws(() => setUp(of("beta", "beta", "beta")).places.check(caller("beta")), busy);
  t.doesNotThrow(() => setUp(of("beta", "beta", "beta")).places.check(caller("gamma")));
  t.doesNotThrow(() => setUp(of("beta", "beta")).places.check(caller("beta")), "of two free places one stays free");
  t.throws(() => setUp(of("beta", "gamma", "beta")).places.check(caller("gamma")), {
    code: "busy",
    message: /gamma has 1/,
  });
  t.throws(() => setUp(of("beta", "beta", "beta", "gamma")).places.check(caller("delta")), {
    code: "busy",
    message: /4 migrations under way/,
  });
  t.doesNotThrow(() => setUp([], 1).places.check(caller("beta")), "the only place of a host is for any peer");
});

t.test("where no other peer may call, one peer may have all places", async (t) => {
  const pair = { ...LIMITS, security: security(ca.material("alpha"), { peers: ["alpha", "beta"] }) };
  t.doesNotThrow(() => setUp(of("beta", "beta", "beta"), 4, pair).places.check(caller("beta")));
  const clear = { ...LIMITS, security: { kind: "clear", insecure: true } } as never;
  t.doesNotThrow(() => setUp(of("beta", "beta", "beta"), 4, clear).places.check(caller("beta")));
});

t.test("of two guests that come together, the earlier one has the memory", async (t) => {
  const { places } = setUp([
    { guest: "a", sequence: 1, takes: 8 },
    { guest: "b", sequence: 2, takes: 100 },
    { guest: "c", sequence: 3, takes: 1000 },
  ]);
  t.equal(await places.promised(2, "b"), 8);
  t.equal(await places.promised(1, "a"), 0);
  t.equal(await places.promised(Number.POSITIVE_INFINITY, "new"), 1108, "the memory of all guests that were accepted");
  t.equal(await places.promised(Number.POSITIVE_INFINITY, "b"), 1008, "the guest's own earlier migration makes way");
});

t.test("one offer for a guest waits for the end of the earlier migration, and further offers do not", async (t) => {
  const { places, entries, dropped, ends } = setUp([{ guest: "web" }]);
  const first = places.clear("web");
  await places.clear("web");
  t.same(dropped, ["web"]);
  t.match(places.busyWith("web"), [{ code: "guest-busy", message: /ferry list/ }]);
  entries.clear();
  ends.resolve();
  await first;
  t.same(places.busyWith("web"), []);
  await places.clear("web");
  t.same(dropped, ["web"], "there is nothing more to end");
});

t.test("a guest still takes the memory that its QEMU does not have yet, until the guest is whole", async (t) => {
  const guest = { process: { pid: process.pid, identity: "" } };
  const state = (kind: string, more: object = {}): DestinationState => ({ kind, guest, ...more }) as never;
  const GIB = 2 ** 30;
  const definition = { command: ["qemu", "-m", "2G"] };
  const negotiating = state("negotiating", { definition });
  t.equal(await stillToTake(negotiating, GIB), GIB, "its QEMU is not known yet");
  t.equal(await stillToTake(negotiating, 8 * GIB), 2 * GIB, "no more than its definition here gives it");
  for (const kind of ["staging", "receiving", "loading"]) {
    const left = await stillToTake(state(kind), 8 * GIB);
    t.ok(left > 4 * GIB && left < 8 * GIB, `${kind}: what this process has of it is not counted (${left})`);
    t.equal(await stillToTake(state(kind), 4096), 0);
  }
  for (const kind of ["loaded", "owning", "starting", "pulling"])
    t.ok((await stillToTake(state(kind, { postcopy: {} }), 8 * GIB)) > 4 * GIB, `${kind} in post-copy`);
  for (const kind of ["loaded", "owning", "starting", "refusing", "withheld", "discarding", "arrived"])
    t.equal(await stillToTake(state(kind), 8 * GIB), 0, kind);
  const gone = { process: { pid: 2 ** 22 + 1, identity: "" } };
  t.equal(await stillToTake(state("receiving", { guest: gone }), GIB), GIB, "the process cannot be seen");
});
