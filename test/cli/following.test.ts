/** Tests how a migration is followed to its end: doubts, second copies, Ctrl-C, and agents that are lost meanwhile. */
import t from "tap";
import type { OperatorClient } from "../../cli/operator-client.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { MigrateCall, MigrationView } from "../../shared/protocol/report.ts";
import { fakeClient, operator, view } from "../support/cli-fixtures.ts";

t.test("a migration that stays in doubt ends the command with 4, and one that is settled does not", async (t) => {
  const doubtful = (settle: boolean) =>
    fakeClient({
      migrate: (_, observer, signal) =>
        new Promise((resolve, reject) => {
          observer(view({ status: "inDoubt" }));
          observer(view({ status: "inDoubt" }));
          signal.addEventListener("abort", () => reject(new MigrationFault("cancelled", "aborted")));
          if (settle) {
            observer(view({ status: "moved" }));
            resolve();
          }
        }),
    });
  t.equal((await operator(doubtful(true)).type("migrate web --to b:1")).code, 0);
  const someone = operator(doubtful(false));
  const typing = someone.type("migrate web --to b:1");
  await someone.clock.advance(9_999);
  t.equal(someone.clock.pending, 1, "the doubt may still be settled");
  await someone.clock.advance(1);
  const typed = await typing;
  t.equal(typed.code, 4);
  t.match(typed.out, /ferry resolve m-1/);
});

t.test(
  "a guest that runs at both hosts ends migrate and watch at once, with 5 and with what to do first",
  async (t) => {
    const follow = (observer: (seen: MigrationView) => void, signal: AbortSignal): Promise<void> =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new MigrationFault("cancelled", "aborted")));
        observer(view({ status: "inDoubt" }));
        observer(view({ status: "doubled" }));
      });
    const client = fakeClient({
      migrate: (_, observer, signal) => follow(observer, signal),
      watch: (_, observer, signal) => follow(observer, signal),
    });
    for (const line of ["migrate web --to b:1", "watch m-1"]) {
      const typed = await operator(client).type(line);
      t.equal(typed.code, 5, line);
      t.match(typed.out, /^!!! web RUNS AT BOTH HOSTS[\s\S]*^!!! FIRST stop one of the two copies/m, line);
      const json = await operator(client).type(`${line} --json`);
      t.equal(json.code, 5);
      t.match(json.err, /^!!! web RUNS AT BOTH HOSTS/, "standard output has nothing but JSON");
      for (const one of json.out.trimEnd().split("\n")) t.ok(JSON.parse(one));
    }
  },
);

function running(): { client: OperatorClient; cancelled: () => number } {
  let finish: () => void = () => undefined;
  let cancels = 0;
  const client = fakeClient({
    migrate: (_, observer, signal) =>
      new Promise((resolve, reject) => {
        finish = () => {
          observer(view({ status: "cancelled" }));
          resolve();
        };
        signal.addEventListener("abort", () => reject(new MigrationFault("cancelled", "aborted")));
        observer(view());
      }),
    cancel: async () => {
      cancels += 1;
      setImmediate(() => finish());
      return view({ status: "cancelled" });
    },
  });
  return { client, cancelled: () => cancels };
}

t.test("Ctrl-C cancels the migration and waits for its end", async (t) => {
  const { client, cancelled } = running();
  const someone = operator(client);
  const typing = someone.type("migrate web --to b:1");
  await new Promise(setImmediate);
  someone.interrupt();
  const typed = await typing;
  t.equal(typed.code, 3);
  t.equal(cancelled(), 1);
  t.match(typed.err, /Cancelling; press Ctrl-C again/);
  t.match(typed.out, /was cancelled/);
});

t.test("a second Ctrl-C leaves the migration to itself and says how to come back", async (t) => {
  const { client } = running();
  const someone = operator({ ...client, cancel: () => new Promise(() => undefined) });
  const typing = someone.type("migrate web --to b:1");
  await new Promise(setImmediate);
  someone.interrupt();
  someone.interrupt();
  const typed = await typing;
  t.equal(typed.code, 130);
  t.match(typed.err, /ferry watch m-1.*ferry cancel m-1/);
});

t.test("a cancel that fails is reported, and the migration is followed on", async (t) => {
  const { client } = running();
  const late = new MigrationFault("in-doubt", "the guest was granted already");
  const someone = operator({ ...client, cancel: () => Promise.reject(late) });
  const typing = someone.type("migrate web --to b:1");
  await new Promise(setImmediate);
  someone.interrupt();
  await new Promise(setImmediate);
  someone.interrupt();
  t.match((await typing).err, /The migration cannot be cancelled: the guest was granted already/);
});

t.test("Ctrl-C ends a watch, and not the migration", async (t) => {
  const { client, cancelled } = running();
  const someone = operator({
    ...client,
    watch: (_, observer, signal) => client.migrate({} as MigrateCall, observer, signal),
  });
  const typing = someone.type("watch m-1");
  await new Promise(setImmediate);
  someone.interrupt();
  t.equal((await typing).code, 130);
  t.equal(cancelled(), 0);
});

t.test("a lost agent is asked again, and the migration is followed to its end", async (t) => {
  let watches = 0;
  const lost = new MigrationFault("peer-lost", "The connection broke");
  const client = fakeClient({
    migrate: async (_, observer) => {
      observer(view());
      throw lost;
    },
    watch: async (id, observer) => {
      t.equal(id, "m-1");
      watches += 1;
      if (watches < 3) throw lost;
      observer(view({ status: "moved" }));
    },
  });
  const someone = operator(client);
  const typing = someone.type("migrate web --to b:1");
  await someone.clock.advance(3000);
  const typed = await typing;
  t.equal(typed.code, 0);
  t.equal(watches, 3);
  t.match(typed.err, /The connection broke; the migration goes on/);
});

t.test("an agent that stays lost, or has forgotten the migration, leaves the end unknown: exit code 4", async (t) => {
  for (const code of ["peer-unreachable", "migration-unknown"] as const) {
    const client = fakeClient({
      migrate: async (_, observer) => observer(view()),
      watch: async () => {
        throw new MigrationFault(code, "nothing there");
      },
    });
    const someone = operator(client);
    const typing = someone.type("migrate web --to b:1");
    await someone.clock.advance(60_000);
    const typed = await typing;
    t.equal(typed.code, 4, code);
    t.match(typed.err, /Lost the agent while it migrated web[\s\S]*ferry watch m-1/);
  }
});

t.test("an agent that cannot be reached at all is a failure", async (t) => {
  const client = fakeClient({
    migrate: async () => {
      throw new MigrationFault("peer-unreachable", "No agent answers at 127.0.0.1:7411");
    },
  });
  t.match(await operator(client).type("migrate web --to b:1"), { code: 1, err: /No agent answers/ });
});

t.test("on a terminal the bar is cleared before the summary", async (t) => {
  const client = fakeClient({
    migrate: async (_, observer) => {
      observer(view());
      observer(view({ status: "moved" }));
    },
  });
  const typed = await operator(client, { interactive: true }).type("migrate web --to b:1");
  const [before, ...drawn] = typed.out.split("\r\u001b[K");
  t.equal(before, "");
  const [bar, summary] = drawn.slice(-2);
  t.match(bar, /^web {2}copying/);
  t.match(summary, /^web moved to/);
});
