/** What this process has cost so far, with all its threads: the compression threads and those of Node too. */
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
