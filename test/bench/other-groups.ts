/** Makes groups of the benchmarks of the stream's reader and of the kernels, which can also be run by themselves. */
import { benchKernels } from "./kernels-bench.ts";
import type { Group } from "./measure.ts";
import { benchStream } from "./stream-bench.ts";

/** Makes a pattern that fits the names that are wanted. These benchmarks take a pattern, and know no groups. */
const patternOf = (wanted: (name: string) => boolean): RegExp => Object.assign(/./, { test: wanted });

export const streamGroup: Group = {
  name: "stream",
  async run(report, wanted) {
    benchStream(({ name, nanosecondsPerPage, heapBytesPerPage, timesCopy, ...rates }) => {
      const note = `${nanosecondsPerPage.toFixed(0)} ns and ${heapBytesPerPage.toFixed(2)} bytes of heap a page`;
      const peer = timesCopy === undefined ? {} : { peer: "copy", timesPeer: timesCopy };
      report({ group: "stream", name, ...rates, ...peer, note });
    }, patternOf(wanted));
  },
};

export const kernelGroup: Group = {
  name: "kernels",
  async run(report, wanted) {
    benchKernels(({ name, twin, timesPlain, deltaBytes, ...rates }) => {
      const peer = timesPlain === undefined ? {} : { peer: "plain", timesPeer: timesPlain };
      const note = deltaBytes === undefined ? {} : { note: `${deltaBytes.toFixed(0)} bytes a delta` };
      report({ group: "kernels", name: `${name} (${twin})`, ...rates, ...peer, ...note });
    }, patternOf(wanted));
  },
};
