/** Tests how a guest's serial console is followed, and how heartbeats are read from it. */
import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { joinedBeats, longestPause, parseBeat, SerialLog } from "./serial.ts";

const line = (beat: number, monoMs: number, errors = 0): string =>
  `FERRY beat=${beat} mono_us=${monoMs * 1000} wall_us=${monoMs * 1000} maxgap_us=1500 pages=${beat * 10} errors=${errors} rate=5 checked=7\r\n`;

t.test("parseBeat() reads all numbers of a heartbeat, and refuses a part of one", async (t) => {
  t.match(parseBeat(line(3, 150).trim(), 9), {
    beat: 3,
    monoUs: 150_000,
    wallUs: 150_000,
    longestGapUs: 1500,
    pages: 30,
    errors: 0,
    rate: 5,
    wordsChecked: 7,
    seenAtMs: 9,
  });
  t.equal(parseBeat(line(3, 150).trim().slice(0, -1).slice(0, 60), 9), undefined);
  t.equal(parseBeat(line(3, 150).trim(), 9)?.appCommands, 0);
  t.equal(parseBeat(`${line(3, 150).trim()} app=4711`, 9)?.appCommands, 4711, "a guest with an application");
  t.equal(parseBeat(line(3, 150).trim(), 9)?.disk, undefined);
  for (const app of ["", " app=4711"])
    t.same(
      parseBeat(`${line(3, 150).trim()}${app} disk=90,94,1,2`, 9)?.disk,
      { written: 90, checked: 94, wrong: 1, failed: 2 },
      "a guest that writes to its disk",
    );
});

t.test("a SerialLog follows a file as it grows, whatever pieces it grows by", async (t) => {
  const path = join(t.testdir({}), "guest.serial");
  const log = new SerialLog(path);
  t.teardown(() => log.close());
  const text = line(0, 0) + line(1, 50);
  const seen = log.waitForBeat(({ beat }) => beat === 1, { timeoutMs: 20_000 });
  for (const character of text) appendFileSync(path, character);
  t.equal((await seen).monoUs, 50_000);
  t.same(
    log.beats().map(({ beat }) => beat),
    [0, 1],
  );
  await t.rejects(
    log.waitForBeat(({ beat }) => beat === 2, { timeoutMs: 20 }),
    /Waited 20 ms .*last lines/s,
  );
});

t.test("corruptions() finds the complaints of the workload and of the kernel", async (t) => {
  const path = join(
    t.testdir({
      log: "FERRY CORRUPT page=1\r\nsomething\r\nFERRY DISK write block=5\r\nKernel panic - not syncing\r\n",
    }),
    "log",
  );
  const log = new SerialLog(path);
  t.teardown(() => log.close());
  t.same(log.corruptions(), ["FERRY CORRUPT page=1", "FERRY DISK write block=5", "Kernel panic - not syncing"]);
});

t.test("joinedBeats() puts a heartbeat that a migration has cut together from both hosts", async (t) => {
  const folder = t.testdir({});
  const [a, b] = [new SerialLog(join(folder, "a")), new SerialLog(join(folder, "b"))];
  t.teardown(() => {
    a.close();
    b.close();
  });
  const [there, back] = [line(2, 100), line(4, 260)];
  const onA = a.waitForBeats(2, { timeoutMs: 20_000 });
  appendFileSync(join(folder, "a"), line(0, 0) + line(1, 50) + there.slice(0, 30));
  await onA;
  const onB = b.waitForBeats(1, { timeoutMs: 20_000 });
  appendFileSync(join(folder, "b"), there.slice(30) + line(3, 230) + back.slice(0, 20));
  await onB;
  // the guest comes back to host a, where its new QEMU empties the file
  const onA2 = a.waitForBeats(1, { timeoutMs: 20_000 });
  writeFileSync(join(folder, "a"), "");
  appendFileSync(join(folder, "a"), back.slice(20) + line(5, 290));
  await onA2;
  t.same(
    joinedBeats([a, b]).map(({ beat }) => beat),
    [0, 1, 2, 3, 4, 5],
  );
  t.match(longestPause(a, b), { monoMs: 130, wallMs: 130, loopMs: 1.5 });
  t.equal(longestPause(a).monoMs, 240, "for one host alone, the time on the other host is a pause");
});
