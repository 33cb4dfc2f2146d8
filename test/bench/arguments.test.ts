/** Tests that the benchmarks' programs say how they are called, and measure nothing when they are called wrongly. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import t from "tap";

const programOf = (name: string): string => fileURLToPath(new URL(`./${name}.js`, import.meta.url));

interface Said {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

const say = (name: string, ...args: string[]): Promise<Said> =>
  new Promise((resolve) => {
    const child = execFile(process.execPath, [programOf(name), ...args], (_error, out, err) => {
      resolve({ status: child.exitCode ?? -1, out, err });
    });
  });

for (const [name, script] of [
  ["suite", "bench"],
  ["postcopy", "bench:postcopy"],
  ["planner", "bench:planner"],
  ["warm-up", "bench:warm-up"],
] as const)
  t.test(`${name} prints its help, and refuses an unknown option without a stack trace`, async (t) => {
    const help = await say(name, "--help");
    t.equal(help.status, 0);
    t.match(help.out, `npm run ${script} -- [options]`);
    const wrong = await say(name, "--nonsense");
    t.equal(wrong.status, 2);
    t.match(wrong.err, /--nonsense/);
    t.match(wrong.err, `npm run ${script} -- [options]`);
    t.notMatch(wrong.err, /\n {4}at /);
  });

t.test("a benchmark refuses values that mean nothing before it sets anything up", async (t) => {
  for (const [name, option, value] of [
    ["suite", "--repetitions", "0"],
    ["suite", "--link", "1Tbit"],
    ["postcopy", "--rounds", "many"],
    ["postcopy", "--link", "fast"],
    ["postcopy", "--order", "backwards"],
    ["planner", "--workload", "nothing"],
    ["planner", "--link", "2Gbit"],
  ] as const) {
    const { status, err } = await say(name, option, value);
    t.equal(status, 2, `${name} ${option} ${value}`);
    t.match(err, value);
    t.notMatch(err, /\n {4}at /);
  }
});
