/** Tests the agents' log: what a line has, how it is bounded, and what never gets into it. */
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { LineBudget } from "../../../../shared/runtime/log/line-budget.ts";
import { budgeted, createLogger, type LogLevel } from "../../../../shared/runtime/log/log.ts";

function rig(level: LogLevel = "info") {
  const lines: string[] = [];
  const logger = createLogger("ferry-source", level, { write: (line) => lines.push(line) });
  return { logger, last: () => JSON.parse(lines.at(-1) ?? "{}"), lines };
}

t.test("a line is JSON with its level in words, its time and its migration", async (t) => {
  const { logger, last } = rig();
  logger.child({ migration: "m-1" }).info({ pages: 7 }, "first pass done");
  t.match(last(), { level: "info", name: "ferry-source", migration: "m-1", pages: 7, msg: "first pass done" });
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
  t.notOk(last().fault.stack, "an expected fault needs no stack");
  logger.error({ err: MigrationFault.from(new Error("bug")) });
  t.ok(last().err.stack);
  logger.error({ err: "a text" });
  t.equal(last().err.message, "a text");
});

t.test("a line is bounded, and no character in it acts on a terminal, wherever its text comes from", async (t) => {
  const { logger, lines, last } = rig();
  const hostile = `\u001b]0;title\u0007\u009b2J\u007f\u202e\u200b\u2028\n\r${"x".repeat(100_000)}`;
  const deep: Record<string, unknown> = {};
  let at = deep;
  for (let i = 0; i < 100; i++) at = Object.assign(at, { next: { text: hostile } }).next;
  const cause = Array.from({ length: 50 }).reduce<Error>(
    (inner) => new Error(hostile, { cause: inner }),
    new Error("x"),
  );
  const refusals = Array.from({ length: 1000 }, () => ({ code: hostile, message: hostile }));
  logger.child({ guest: "web" }).warn(
    {
      guest: hostile,
      versions: Array.from({ length: 100_000 }, (_, i) => i),
      fields: Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`${i}${hostile.slice(0, 5000)}`, hostile])),
      deep,
      fault: new MigrationFault("peer-invalid", hostile, { cause, refusals, advice: hostile, guestNow: hostile }),
    },
    hostile,
  );
  t.equal(lines.length, 1);
  t.ok((lines[0]?.length ?? 0) < 400_000, `${lines[0]?.length} characters`);
  t.match(lines[0], /^[\x20-\x7e…]*\n$/);
  t.equal(last().guest.slice(0, 20), hostile.slice(0, 20), "the text says the same as before");
  t.equal(last().versions.length, 201);
  for (const text of [hostile, "100%"]) logger.error(text);
  t.match(lines[1], /^[\x20-\x7e…]{1,25000}\n$/);
  t.equal(last().msg, "100%");
});

t.test("the lines of one cause and of its children are limited by kind, and no other lines are", async (t) => {
  const { logger, lines } = rig();
  const one = budgeted(logger, new LineBudget(2));
  const child = one.child({ migration: "m-1" });
  for (let i = 0; i < 10; i++) child.info({ i }, "state");
  one.info("state");
  for (let i = 0; i < 3; i++) logger.info({ i }, "state");
  child.warn({ i: 11 }, "fault");
  t.same(
    lines.map((line) => JSON.parse(line)).map(({ i }) => i),
    [0, 1, 0, 1, 2, 11],
  );
});
