/** Waits with a bound on the time, since a test that hangs says nothing about why. */

/** Waits for a promise. @throws Error naming what was waited for, when the promise has not settled after `timeoutMs` */
export async function bounded<Value>(promise: Promise<Value>, timeoutMs: number, what: string): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Waited ${timeoutMs} ms for ${what}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Asks again and again until the answer is not undefined. It is for things that send no event, such as a socket that
 * appears or a counter that grows.
 * @throws Error naming what was waited for, after `timeoutMs`
 */
export async function eventually<Value>(
  ask: () => Promise<Value | undefined> | Value | undefined,
  { timeoutMs, everyMs = 10, what }: { timeoutMs: number; everyMs?: number; what: string },
): Promise<Value> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() >= end) throw new Error(`Waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
