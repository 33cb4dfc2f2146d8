/**
 * Distinguishes sections that drained QEMU's dirty bitmap, after which QEMU syncs the bitmap, and sections that QEMU
 * ended because the time for a section was up (docs/design/feed-pacing.md#drained-sections).
 */

/**
 * QEMU looks at its clock at every 64th turn of its loop, so after 1, 65, 129 … pages of a section (migration/ram.c
 * ram_save_iterate).
 */
const CLOCK_TURNS = 64;

export class DrainedSections {
  private drained = false;
  private lastPages = 0;

  /**
   * Takes the section that ended. A section of a single page is ambiguous: it counts as drained if the section before
   * was drained, or had a single page too.
   * @param pages how many pages the section had
   * @returns true if the section ended because no page was dirty any more
   */
  next(pages: number): boolean {
    const ambiguous = pages === 1 && (this.drained || this.lastPages === 1);
    this.drained = ambiguous || pages % CLOCK_TURNS !== 1;
    this.lastPages = pages;
    return this.drained;
  }
}
