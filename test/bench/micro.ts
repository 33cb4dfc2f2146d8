/**
 * Runs all micro-benchmarks: `npm run bench:micro [-- [--json] [REGEX of case names]]`. Prints a table as text, or one
 * JSON object a line. test/bench/README.md says what the cases are.
 */
import { classifyGroup } from "./classify-bench.ts";
import { frameGroup } from "./frame-bench.ts";
import { linkGroup } from "./link-bench.ts";
import { type Group, heading, line, type Measurement } from "./measure.ts";
import { kernelGroup, streamGroup } from "./other-groups.ts";
import { pipelineGroup } from "./pipeline-bench.ts";

const GROUPS: readonly Group[] = [streamGroup, classifyGroup, pipelineGroup, frameGroup, linkGroup, kernelGroup];

async function main(args: readonly string[]): Promise<void> {
  const json = args.includes("--json");
  const pattern = new RegExp(args.find((one) => one !== "--json") ?? ".");
  for (const group of GROUPS) {
    const wanted = (name: string): boolean => pattern.test(`${group.name}: ${name}`);
    let first = true;
    const report = (measurement: Measurement): void => {
      if (json) console.log(JSON.stringify(measurement));
      else console.log(first ? `${heading(group.name)}\n${line(measurement)}` : line(measurement));
      first = false;
    };
    await group.run(report, wanted);
  }
}

await main(process.argv.slice(2));
