/**
 * Tests that a QEMU which is paused in post-copy is told that the destination has every page, and then that it failed.
 */
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { abortPostcopy } from "../../../agent-source/migration/abort-postcopy.ts";
import type { SourceContext } from "../../../agent-source/migration/source-context.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { ReturnPathReader } from "../../../shared/qemu/return-path/return-path-reader.ts";
import { encodeRamEnd } from "../../../shared/qemu/stream/stream-writer.ts";
import { type Clock, systemClock } from "../../../shared/runtime/clock.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";
import { asking, RESUMED_SETUP } from "../../support/fake-resumed.ts";
import { folder } from "../../support/link-fixtures.ts";
import { passing, until } from "../../support/migrating.ts";

const GREETING = greeting();

/** What QEMU does when it is told to resume its migration. */
type Behaviour = "takes it up" | "closes" | "sends rubbish" | "sends without end" | "does nothing" | "stays";

async function setUp(t: Test, behaviour: Behaviour, clock: Clock = systemClock) {
  const heard: string[] = [];
  let status = "postcopy-paused";
  const goOn = (uri: string): void => {
    const socket = connect(uri.replace("unix:", ""));
    t.teardown(() => socket.destroy());
    socket.on("error", () => undefined);
    const none = (): void => undefined;
    const reader = new ReturnPathReader(RESUMED_SETUP.blocks, {
      requestPages: none,
      pong: none,
      switchoverAck: none,
      receivedPages: (firstPage, pageCount, bits) => {
        const has = bits.slice(0, Math.ceil(pageCount / 8)).every((byte) => byte === 255);
        heard.push(`${has ? "all" : "not all"} of ${pageCount} from ${firstPage}`);
      },
      resumeAck: () => {
        heard.push("resume");
        socket.write(encodeRamEnd(RESUMED_SETUP.ramSectionId));
        // the end of the stream comes in a piece of its own
        setImmediate(() => socket.write(Buffer.of(0)));
      },
      shut: (error) => {
        heard.push(`shut ${error}`);
        if (behaviour !== "stays") status = "failed";
        socket.end();
      },
    });
    socket.on("data", (bytes) => reader.push(bytes));
    if (behaviour === "closes") socket.end();
    else if (behaviour === "sends rubbish") socket.write("no stream of QEMU's at all");
    else if (behaviour === "sends without end") socket.write(Buffer.alloc(1 << 20));
    else socket.write(asking());
  };
  const path = await serve(t, (socket) => {
    new Monitor(socket, ({ execute, arguments: given, id }, monitor) => {
      monitor.reply({ return: execute === "query-migrate" ? { status } : {}, id });
      if (execute !== "migrate") return;
      heard.push(`migrate, resume: ${given?.resume}`);
      if (behaviour !== "does nothing") goOn(String(given?.uri));
    }).reply(GREETING);
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  const runtimeDirectory = folder(t);
  // everything of the context that `abortPostcopy` reads
  const cx = {
    id: "m-1",
    call: { guest: "web" },
    config: { runtimeDirectory },
    clock,
  } as unknown as SourceContext;
  return { heard, socket: join(runtimeDirectory, "m-1.stream"), abort: () => abortPostcopy(qmp, RESUMED_SETUP, cx) };
}

t.test("QEMU leaves its migration with the whole guest, and no socket is left behind", async (t) => {
  const { abort, heard, socket } = await setUp(t, "takes it up");
  await abort();
  t.same(heard, [
    "migrate, resume: true",
    "all of 40 from 0",
    "all of 4 from 40",
    "all of 2 from 44",
    "resume",
    "shut 1",
  ]);
  t.notOk(existsSync(socket));
  await abort();
});

for (const [behaviour, fault] of [
  ["closes", { code: "qemu-failed", message: /closed the stream/ }],
  ["sends rubbish", { code: "stream-invalid" }],
  ["sends without end", { code: "stream-invalid" }],
] as const)
  t.test(`a QEMU that ${behaviour} fails the attempt by name, and the agent may try again`, async (t) => {
    const { abort, socket } = await setUp(t, behaviour);
    await t.rejects(abort(), fault);
    t.notOk(existsSync(socket));
    await t.rejects(abort(), fault);
  });

for (const [behaviour, message] of [
  ["does nothing", "The source QEMU did not resume its migration"],
  ["stays", "The source QEMU's migration is postcopy-paused after it was told to fail"],
] as const)
  t.test(`a QEMU that ${behaviour} for 10 s fails the attempt, so that the agent tries again`, async (t) => {
    const clock = new FakeClock();
    const { abort, socket, heard } = await setUp(t, behaviour, clock);
    const end = abort();
    end.catch(() => undefined);
    await until(() => heard.includes(behaviour === "stays" ? "shut 1" : "migrate, resume: true"), "QEMU's part");
    await t.rejects(passing(clock, end), { code: "qemu-failed", message });
    t.ok(clock.monotonicMs() >= 10_000);
    t.notOk(existsSync(socket));
  });
