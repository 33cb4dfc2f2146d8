/**
 * Faults that a test asks for by name (configuration key `faults`), so that a fault meets a migration at an exact
 * point:
 *
 *     corrupt-page     the destination changes one byte of a page after all checks
 *     hold-at=STATE    the first migration that enters STATE waits there until the agent gets SIGUSR2
 */
/**
 * The part of a Logger (log/log.ts) that is used here. The type Logger is not imported, since log/ imports this folder,
 * and no two folders may import each other.
 */
interface Warns {
  warn(fields: object, text: string): void;
}

/** The forms of the names, for messages. */
export const FAULT_FORMS = ["corrupt-page", "hold-at=STATE"] as const;

const HOLD = /^hold-at=([A-Za-z]+)$/;

export const isFaultName = (name: string): boolean => name === "corrupt-page" || HOLD.test(name);

export class TestFaults {
  private readonly names: readonly string[];
  private readonly held: Set<string>;

  constructor(names: readonly string[] = []) {
    this.names = names;
    this.held = new Set(names.flatMap((name) => HOLD.exec(name)?.[1] ?? []));
  }

  has(name: "corrupt-page"): boolean {
    return this.names.includes(name);
  }

  /** Waits for SIGUSR2 if a test asked for hold-at=`point`, and this is the first migration at that point. */
  async at(point: string, log: Warns): Promise<void> {
    if (!this.held.delete(point)) return;
    const released = new Promise<void>((resolve) => process.once("SIGUSR2", () => resolve()));
    log.warn({ held: point }, "held, as a test asked");
    await released;
  }
}
