/** What this process has cost so far, all its threads included: those of zstd and of the runtime too. */
export interface ProcessUsage {
  readonly cpuSeconds: number;
  readonly peakMemoryBytes: number;
}

export function processUsage(): ProcessUsage {
  const usage = process.resourceUsage();
  return {
    cpuSeconds: (usage.userCPUTime + usage.systemCPUTime) / 1e6,
    peakMemoryBytes: usage.maxRSS * 1024,
  };
}
