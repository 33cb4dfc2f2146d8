/** Tests the command line of `ferry`: what is asked of an agent, what is shown, and which exit code it has. */
import t from "tap";
import { MigrationFault } from "../../shared/fault.ts";
import type { MigrateCall, MigrationView } from "../../shared/protocol/report.ts";
import { fakeClient, operator, result, view } from "../support/cli-fixtures.ts";

const guest = {
  ...{ name: "web", state: "running", detail: "", qemuVersion: "10.0.2", machineType: "q35", migrationId: "" },
  definitionDigest: "0123456789abcdef",
};

t.test("migrate asks for what was typed, with units converted", async (t) => {
  const calls: MigrateCall[] = [];
  const client = fakeClient({
    migrate: async (call, observer) => {
      calls.push(call);
      observer(view({ status: "moved", result: result() }));
    },
  });
  const { type } = operator(client);
  const plain = await type("migrate web --to host-b:7412");
  t.equal(plain.code, 0);
  t.match(plain.out, /web moved to host-b:7412 in 4\.2 s/);
  const options = {
    strategy: "auto",
    downtimeTargetMs: 0,
    deadlineMs: 0,
    onDeadline: "cancel",
    bandwidthBytesPerSecond: 0,
    delta: true,
    reorder: true,
    compression: "auto",
    verify: false,
    sharedDisksUnchecked: false,
    robust: false,
  };
  t.same(calls[0], { guest: "web", to: "host-b:7412", options });
  await type(
    "migrate web --to unix:/x --strategy precopy --downtime 150ms --deadline 10m --on-deadline force --bandwidth 1Gbit --no-delta --no-reorder --compression -5 --verify",
  );
  t.same(calls[1]?.options, {
    strategy: "precopy",
    downtimeTargetMs: 150,
    deadlineMs: 600_000,
    onDeadline: "force",
    bandwidthBytesPerSecond: 125e6,
    delta: false,
    reorder: false,
    compression: -5,
    verify: true,
    sharedDisksUnchecked: false,
    robust: false,
  });
});

t.test("each end of a migration has its exit code and its words", async (t) => {
  const ends = [
    ["moved", 0, /moved to/],
    ["failed", 1, /was not moved/],
    ["cancelled", 3, /was cancelled/],
  ] as const;
  for (const [status, code, words] of ends) {
    const client = fakeClient({ migrate: async (_, observer) => observer(view({ status })) });
    const typed = await operator(client).type("migrate web --to b:1");
    t.equal(typed.code, code, status);
    t.match(typed.out, words);
  }
});

t.test("list ends with 5 when a guest runs at both hosts, and with 0 when one is only in doubt", async (t) => {
  const listing = (status: MigrationView["status"]) =>
    operator(fakeClient({ listMigrations: async () => [view(), view({ id: "m-2", status })] }));
  t.match(await listing("doubled").type("list"), { code: 5, out: /^!!! web RUNS AT BOTH HOSTS/, err: "" });
  const json = await listing("doubled").type("list --json");
  t.match(json, { code: 5, err: /^!!! web RUNS AT BOTH HOSTS/ });
  t.equal(json.out.trimEnd().split("\n").length, 2);
  t.match(await listing("inDoubt").type("list"), { code: 0, out: /in doubt/ });
});

t.test("wrong usage is answered with what would be right, and exits with 2 before anything is asked", async (t) => {
  const cases: [string, RegExp][] = [
    ["", /Usage: ferry/],
    ["fly web", /unknown command 'fly'/],
    ["migrate web", /required option '--to/],
    ["migrate --to b:1", /missing required argument 'guest'/],
    ["migrate web --to b", /not an address/],
    ["migrate web --to b:1 --strategy fast", /auto, stop-and-copy, precopy, postcopy, hybrid/],
    ["migrate web --to b:1 --strategy hybrid --verify", /leave out --verify or post-copy/],
    ["migrate web --to b:1 --deadline 9s --on-deadline postcopy --verify", /leave out --verify or post-copy/],
    ["plan web --to b:1 --strategy postcopy --verify", /leave out --verify or post-copy/],
    ["migrate web --to b:1 --on-deadline wait", /cancel, force, postcopy/],
    ["migrate web --to b:1 --downtime 300", /"300" is not a duration.*"300ms"/],
    ["migrate web --to b:1 --downtime 0", /is not greater than 0/],
    ["migrate web --to b:1 --bandwidth 1Gb", /"1Gbit"/],
    ["migrate web --to b:1 --compression 20", /-50 to 19/],
    ["migrate web --to b:1 --fast", /unknown option '--fast'/],
    ["resolve m-1", /required option '--keep/],
    ["resolve m-1 --keep both", /Allowed choices are source, destination/],
    ["heatmap web --cells 0", /from 1 to/],
    ["guests --agent nowhere", /not an address/],
    ["guests --timeout soon", /not a duration/],
  ];
  for (const [line, words] of cases) {
    const typed = await operator(fakeClient({})).type(line);
    t.equal(typed.code, 2, line);
    t.match(typed.err, words, line);
    t.same(typed.addresses, []);
  }
});

t.test("help and version exit with 0", async (t) => {
  const { type } = operator(fakeClient({}));
  t.match(await type("--help"), { code: 0, out: /migrate[\s\S]*resolve/ });
  t.match(await type("migrate --help"), { code: 0, out: /Ctrl-C cancels[\s\S]*Exit codes/ });
  t.match(await type("--version"), { code: 0, out: /^\d+\.\d+\.\d+\n$/ });
});

t.test("the agent is the one of --agent, else the one of FERRY_AGENT, else the one of this host", async (t) => {
  const client = fakeClient({ listGuests: async () => [] });
  t.same((await operator(client).type("guests")).addresses, ["unix:/run/ferry/source.sock"]);
  const { type } = operator(client, { env: { FERRY_AGENT: "host-a:1" } });
  t.same((await type("guests")).addresses, ["host-a:1"]);
  t.same((await type("guests --agent host-c:2")).addresses, ["host-c:2"]);
  t.same((await type("--agent host-c:2 guests")).addresses, ["host-c:2"]);
});

t.test("lists are tables, or with --json an object on each line", async (t) => {
  const { type } = operator(
    fakeClient({
      listGuests: async () => [guest, { ...guest, name: "db" }],
      listMigrations: async () => [view()],
      heatMap: async (_, cells) => [{ name: "pc.ram", pagesPerCell: 1, cells: new Uint8Array(Math.min(cells, 3)) }],
      plan: async () => ({
        accepted: false,
        refusals: [{ code: "cpu-model", message: "other" }],
        negotiated: {},
        notes: [],
      }),
    }),
  );
  t.match(await type("guests"), { code: 0, out: /^GUEST[\s\S]*web[\s\S]*db/ });
  const lines = (await type("guests --json")).out.trimEnd().split("\n");
  t.same(
    lines.map((line) => JSON.parse(line)),
    [guest, { ...guest, name: "db" }],
  );
  t.match(await type("list"), { code: 0, out: /^MIGRATION[\s\S]*m-1/ });
  t.match(await type("heatmap web"), { code: 0, out: /pc\.ram: 3 cells/ });
  t.same(JSON.parse((await type("heatmap web --cells 2 --json")).out).cells, [0, 0]);
  t.match(await type("plan web --to b:1"), { code: 1, out: /would not take web[\s\S]*cpu-model/ });
});

t.test("cancel succeeds when it has cancelled, and resolve says how the migration stands", async (t) => {
  const ended = (status: "cancelled" | "moved" | "inDoubt" | "doubled") =>
    operator(fakeClient({ cancel: async () => view({ status }) }));
  t.equal((await ended("cancelled").type("cancel m-1")).code, 0);
  t.equal((await ended("moved").type("cancel m-1")).code, 1);
  t.equal((await ended("inDoubt").type("cancel m-1")).code, 4);
  t.equal((await ended("doubled").type("cancel m-1")).code, 5);
  const asked: string[] = [];
  const client = fakeClient({
    resolve: async ({ id, keep, confirmed }) => {
      if (id === "m-2" && !confirmed) throw new MigrationFault("needs-confirmation", "b:1 cannot be asked");
      asked.push(id, keep);
      return view({ status: keep === "source" ? "failed" : "moved" });
    },
  });
  t.equal((await operator(client).type("resolve m-1 --keep source")).code, 0);
  t.same(asked, ["m-1", "source"]);
  const unsure = await operator(client).type("resolve m-2 --keep destination");
  t.match(unsure, { code: 1, err: /b:1 cannot be asked/ });
  t.equal(asked.length, 2, "nothing is done without a confirmation");
  t.equal((await operator(client).type("resolve m-2 --keep destination --yes")).code, 0);
  t.equal(
    (await operator(client, { confirms: true }).type("resolve m-2 --keep destination")).code,
    0,
    "the operator confirms at the terminal",
  );
});

t.test("a word that was not done is no success, whatever became of the migration", async (t) => {
  const settled = (status: MigrationView["status"]) => operator(fakeClient({ resolve: async () => view({ status }) }));
  const word = async (keep: string, status: MigrationView["status"]) =>
    (await settled(status).type(`resolve m-1 --keep ${keep}`)).code;
  t.same([await word("source", "undoing"), await word("source", "cancelled")], [0, 0]);
  t.same([await word("destination", "serving"), await word("destination", "granting")], [0, 0]);
  t.same([await word("source", "inDoubt"), await word("destination", "doubled")], [4, 5]);
  t.equal(await word("destination", "failed"), 1);
  const late = await settled("moved").type("resolve m-1 --keep source");
  t.match(late, {
    code: 1,
    out: /web moved to/,
    err: /was not kept at the source: the migration was settled otherwise/,
  });
});

t.test("a fault says what failed, where the guest is and what to do, also as JSON", async (t) => {
  const client = fakeClient({
    listGuests: async () => {
      throw new MigrationFault("peer-unreachable", "No agent answers at 127.0.0.1:7411", {
        advice: "Start ferry-source",
      });
    },
  });
  const typed = await operator(client).type("guests");
  t.equal(typed.code, 1);
  t.equal(
    typed.err,
    "ferry: No agent answers at 127.0.0.1:7411 (peer-unreachable)\n  what to do: Start ferry-source\n",
  );
  t.same(JSON.parse((await operator(client).type("guests --json")).out).error.code, "peer-unreachable");
});

t.test("a connection that failed is reported with the agent's address", async (t) => {
  const client = fakeClient({
    listGuests: async () => {
      throw new MigrationFault("peer-unreachable", "ECONNREFUSED");
    },
  });
  const typed = await operator(client).type("guests --agent host-a:1");
  t.match(typed, { code: 1, err: /No answer from the agent at host-a:1: ECONNREFUSED.*\n.*--agent or FERRY_AGENT/ });
});

t.test("certificates come from the command line or the environment, all three or none", async (t) => {
  const client = fakeClient({ listGuests: async () => [] });
  const env = { FERRY_TLS_CA: "/ca", FERRY_TLS_CERTIFICATE: "/certificate", FERRY_TLS_KEY: "/key" };
  const files = { ca: "/ca", certificate: "/certificate", key: "/key" };
  t.match(await operator(client, { env }).type("guests"), { code: 0, files: [files] });
  t.match(await operator(client, { env }).type("guests --tls-key /other"), {
    code: 0,
    files: [{ ...files, key: "/other" }],
  });
  t.match(await operator(client).type("guests"), { code: 0, files: [undefined] });
  const half = await operator(client).type("guests --tls-ca /ca --tls-certificate /certificate");
  t.match(half, { code: 2, files: [], err: /TLS needs --tls-key too.*\n.*FERRY_TLS_KEY/ });
});

t.test("--json shows every view and nothing else on standard output", async (t) => {
  const client = fakeClient({
    migrate: async (_, observer) => {
      observer(view());
      observer(view({ status: "moved", result: result() }));
    },
  });
  const typed = await operator(client).type("migrate web --to b:1 --json");
  const views = typed.out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  t.same(
    views.map((one) => one.status),
    ["copying", "moved"],
  );
  t.equal(views[1].result.downtime.totalMs, 41.7);
});

t.test("--detach returns the migration's id as soon as there is one", async (t) => {
  const client = fakeClient({
    migrate: (_, observer, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(new MigrationFault("cancelled", "aborted")));
        observer(view({ status: "preparing" }));
        observer(view());
      }),
  });
  t.match(await operator(client).type("migrate web --to b:1 --detach"), { code: 0, out: "m-1\n" });
  const refused = fakeClient({
    migrate: async () => {
      throw new MigrationFault("guest-busy", "web is being migrated");
    },
  });
  t.match(await operator(refused).type("migrate web --to b:1 --detach"), { code: 1, err: /guest-busy/ });
});
