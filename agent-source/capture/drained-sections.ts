/** Tells the sections of QEMU's stream after which it syncs its dirty bitmap from those that it ended on its clock. */

/** QEMU looks at its clock after 1, 65, 129 … pages (migration/ram.c ram_save_iterate, every 64th turn of its loop). */
const CLOCK_TURNS = 64;

export class DrainedSections {
  private drained = false;
  private lastPages = 0;

  /**
   * Did the section end because nothing was dirty any more? A lone page is ambiguous: it is taken as all there was when
   * nothing was left before, or when it happens again.
   */
  next(pages: number): boolean {
    const ambiguous = pages === 1 && (this.drained || this.lastPages === 1);
    this.drained = ambiguous || pages % CLOCK_TURNS !== 1;
    this.lastPages = pages;
    return this.drained;
  }
}
