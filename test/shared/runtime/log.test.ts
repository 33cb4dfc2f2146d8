import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { createLogger, type LogLevel, migrationLogger } from "../../../shared/runtime/log.ts";

function rig(level: LogLevel = "info") {
  const lines: string[] = [];
  const logger = createLogger("ferry-source", level, { write: (line) => lines.push(line) });
  return { logger, last: () => JSON.parse(lines.at(-1) ?? "{}"), lines };
}

t.test("a line is JSON with its level in words, its time and its migration", async (t) => {
  const { logger, last } = rig();
  migrationLogger(logger, "m-1").info({ pages: 7 }, "first pass done");
  t.match(last(), { level: "info", name: "ferry-source", migrationId: "m-1", pages: 7, msg: "first pass done" });
  t.match(last().time, /^\d{4}-\d\d-\d\dT/);
});

t.test("lines below the level are not written", async (t) => {
  const { logger, lines } = rig("warn");
  logger.info("not this");
  t.same(lines, []);
});

t.test("tokens never get into the log, wherever they stand", async (t) => {
  const { logger, lines } = rig();
  const token = "secret-token";
  logger.info({
    token,
    grant: { token },
    offer: { inner: { token } },
    refusedToken: token,
    failure: { refusedToken: token },
  });
  t.notMatch(lines.join(), /secret-token/);
  t.match(lines.join(), /\[secret\]/);
});

t.test("a fault is logged with its code, the guest and the advice, and the chain of causes", async (t) => {
  const { logger, last } = rig();
  const cause = new Error("ECONNREFUSED");
  logger.error({
    fault: new MigrationFault("peer-unreachable", "No answer", {
      guestNow: "the guest runs at the source",
      advice: "Start it",
      cause,
    }),
  });
  t.match(last().fault, {
    code: "peer-unreachable",
    message: "No answer",
    guestNow: "the guest runs at the source",
    advice: "Start it",
    cause: { message: "ECONNREFUSED", stack: /log\.test/ },
  });
  t.notOk(last().fault.stack, "what was expected needs no stack");
  logger.error({ err: MigrationFault.from(new Error("bug")) });
  t.ok(last().err.stack);
  logger.error({ err: "a text" });
  t.equal(last().err.message, "a text");
});
