/** Where a command writes, and how wide that is. Handed in, so that tests read what an operator would see. */
export interface Terminal {
  /** Results and progress. */
  out(text: string): void;
  /** Errors. */
  err(text: string): void;
  /** May lines be redrawn in place? */
  readonly isInteractive: boolean;
  readonly columns: () => number;
  readonly monotonicMs: () => number;
}

const COLUMNS_UNKNOWN = 100;

export const processTerminal = (): Terminal => ({
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  isInteractive: process.stdout.isTTY === true && process.env.TERM !== "dumb",
  columns: () => process.stdout.columns ?? COLUMNS_UNKNOWN,
  monotonicMs: () => performance.now(),
});
