/** Tests the program itself, as a process, against a real gRPC server with a simulated agent behind it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import t from "tap";
import { MigrationFault } from "../../shared/fault.ts";
import { serveSource } from "../../shared/link/grpc/grpc-server.ts";
import type { SourceService } from "../../shared/link/link.ts";
import type { MigrateCall, MigrationView } from "../../shared/protocol/report.ts";
import { result, view } from "../support/cli-fixtures.ts";
import { SERVE } from "../support/link.ts";

const program = fileURLToPath(new URL("../../cli/main.js", import.meta.url));

const unexpected = (): never => {
  throw new MigrationFault("internal", "not expected");
};

/** An agent with one migration, which a test moves along by hand. */
class FakeAgent implements SourceService {
  readonly calls: MigrateCall[] = [];
  private readonly observers = new Set<(view: MigrationView) => void>();
  private now = view({ status: "preparing" });

  put(changes: Partial<MigrationView>): void {
    this.now = view(changes);
    for (const observer of [...this.observers]) observer(this.now);
  }

  async listGuests() {
    const none = { detail: "", migrationId: "", definitionDigest: "" };
    return [{ name: "web", state: "running", qemuVersion: "10.0.2", machineType: "q35", ...none }];
  }

  async migrate(call: MigrateCall) {
    if (call.guest === "unknown")
      throw new MigrationFault("guest-unknown", "No definition of guest unknown", { advice: "Put it there" });
    this.calls.push(call);
    return "m-1";
  }

  watch(_: string, observer: (view: MigrationView) => void) {
    this.observers.add(observer);
    observer(this.now);
    return () => void this.observers.delete(observer);
  }

  async cancel() {
    this.put({ status: "cancelled" });
    return this.now;
  }

  plan = unexpected;
  getMigration = unexpected;
  listMigrations = unexpected;
  heatMap = unexpected;
  resolve = unexpected;
  acceptTransfer = unexpected;
}

async function rig(t: { teardown(done: () => Promise<void>): unknown }) {
  const agent = new FakeAgent();
  const listener = await serveSource(agent, SERVE);
  t.teardown(() => listener.close(0));
  const start = (...words: string[]) => {
    const child = spawn(process.execPath, [program, ...words], {
      env: { ...process.env, FERRY_AGENT: listener.address },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const said = { out: "", err: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said.out += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said.err += text;
    });
    /** Resolves when the program has said something that matches `pattern`. */
    const says = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(said.out)) await once(child.stdout, "data");
    };
    const ended = once(child, "close").then(([code]) => ({ code, ...said }));
    return { child, says, ended };
  };
  return { agent, start };
}

t.test("guests are listed and the process ends with 0", async (t) => {
  const { start } = await rig(t);
  t.match(await start("guests").ended, { code: 0, out: /^GUEST[\s\S]*web +running/, err: "" });
});

t.test("a migration is followed line by line to its summary", async (t) => {
  const { agent, start } = await rig(t);
  const ferry = start("migrate", "web", "--to", "127.0.0.1:9", "--bandwidth", "1Gbit");
  await ferry.says(/preparing/);
  agent.put({ status: "copying" });
  await ferry.says(/copying {2}first pass 52%/);
  agent.put({ status: "moved", result: result() });
  t.match(await ferry.ended, { code: 0, out: /web moved to host-b:7412 in 4\.2 s\n {2}downtime +41\.7 ms/, err: "" });
  t.match(agent.calls[0], { guest: "web", to: "127.0.0.1:9", options: { bandwidthBytesPerSecond: 125e6 } });
});

t.test("--json gives views that programs read back, result included", async (t) => {
  const { agent, start } = await rig(t);
  agent.put({ status: "moved", result: result() });
  const { code, out } = await start("migrate", "web", "--to", "127.0.0.1:9", "--json").ended;
  t.equal(code, 0);
  const last = JSON.parse(out.trimEnd().split("\n").at(-1) ?? "");
  t.match(last, { id: "m-1", status: "moved", result: { downtime: { totalMs: 41.7 }, bytes: { total: 219e6 } } });
});

t.test("Ctrl-C cancels and the process ends with 3", async (t) => {
  const { agent, start } = await rig(t);
  const ferry = start("migrate", "web", "--to", "127.0.0.1:9");
  await ferry.says(/preparing/);
  agent.put({ status: "copying" });
  await ferry.says(/copying/);
  ferry.child.kill("SIGINT");
  t.match(await ferry.ended, { code: 3, out: /was cancelled/, err: /Cancelling/ });
});

t.test("a refusal of an agent arrives with its code and its advice", async (t) => {
  const { start } = await rig(t);
  const refused = await start("migrate", "unknown", "--to", "127.0.0.1:9").ended;
  t.match(refused, { code: 1, err: /No definition of guest unknown \(guest-unknown\)\n {2}what to do: Put it there/ });
});

t.test("the program ends with 1 when there is no agent, and with 2 for wrong usage", async (t) => {
  const { start } = await rig(t);
  t.match(await start("guests", "--agent", "127.0.0.1:1").ended, {
    code: 1,
    err: /No answer from the agent at 127\.0\.0\.1:1/,
  });
  t.match(await start("migrate", "web").ended, { code: 2, err: /--to/ });
});
