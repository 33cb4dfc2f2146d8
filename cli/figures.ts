/** Figures rounded for people. A program reads the exact figures from `--json`. */

const STEPS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;
const MEMORY_STEPS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** Writes bytes on a link, in powers of ten as links are sold: "118 MB". */
export const bytesText = (bytes: number): string => scaled(bytes, 1000, STEPS);

/** Writes bytes of memory, in powers of two: "512 MiB". */
export const memoryText = (bytes: number): string => scaled(bytes, 1024, MEMORY_STEPS);

export const rateText = (bytesPerSecond: number): string => `${bytesText(bytesPerSecond)}/s`;

/** Writes a duration: "0.8 ms", "42 ms", "4.2 s", "3m 20s", "2h 5m". */
export function durationText(milliseconds: number): string {
  if (!Number.isFinite(milliseconds)) return "unknown";
  if (milliseconds < 999.5) return `${significant(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${whole % 60}s`;
  return `${Math.floor(whole / 3600)}h ${Math.floor((whole % 3600) / 60)}m`;
}

export const percentText = (fraction: number): string => `${Math.floor(Math.min(Math.max(fraction, 0), 1) * 100)}%`;

/** Writes a ratio: "14.2 : 1", or "none" for 0, which says that there was nothing to compare. */
export const ratioText = (ratio: number): string => (ratio === 0 ? "none" : `${significant(ratio)} : 1`);

/** Writes a count: "1 234 567". */
export const countText = (count: number): string => String(Math.round(count)).replace(/\B(?=(?:\d{3})+$)/g, " ");

const BLOCKS = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/** Returns the block character, from ▁ to █, for a share of the largest value, 0 to 1. */
export const blockFor = (share: number): string =>
  BLOCKS[Math.min(BLOCKS.length - 1, Math.max(0, Math.floor(share * BLOCKS.length)))] ?? "▁";

/**
 * Draws counts side by side. The scale is logarithmic: nearly all pages of a guest are cold, and the few hot ones
 * matter.
 */
export function histogram(counts: readonly number[]): string {
  const most = Math.log1p(Math.max(0, ...counts));
  return counts.map((count) => (count === 0 || most === 0 ? "▁" : blockFor(Math.log1p(count) / most))).join("");
}

/** Replaces every character of a text from an agent or a file that could move the cursor or change the terminal. */
export const printable = (text: string): string => text.replace(/\p{Cc}|\p{Cf}/gu, "?");

function scaled(value: number, step: number, names: readonly string[]): string {
  if (!Number.isFinite(value)) return "unknown";
  let rest = value;
  let index = 0;
  while (rest >= step * 0.9995 && index < names.length - 1) {
    rest /= step;
    index += 1;
  }
  return `${index === 0 ? Math.round(rest) : significant(rest)} ${names[index]}`;
}

/**
 * Writes a number without an exponent: rounded to two decimals below 10, to one decimal below 100, and to a whole
 * number from there on. Zeros at the end of the decimals are left out: 0.82, 9.5, 42, 118, 1020.
 */
function significant(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  if (value >= 9.995) return trimmed(value.toFixed(1));
  return trimmed(value.toFixed(2));
}

const trimmed = (text: string): string => text.replace(/\.?0+$/, "");
