/** Keeps the lines of a run in a file, so that a later run can continue from there. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { cellKey, type HeaderLine, type Line, type Sample } from "./sample.ts";

export class Journal {
  readonly path: string;
  readonly lines: Line[];

  /** With `resume` the lines that are in the file count; without it the file is emptied. */
  constructor(path: string, header: HeaderLine, resume: boolean) {
    this.path = path;
    mkdirSync(dirname(path), { recursive: true });
    if (resume && existsSync(path)) {
      const text = readFileSync(path, "utf8");
      // the next line must not become a part of a half line before it
      if (!text.endsWith("\n")) appendFileSync(path, "\n");
      this.lines = readLines(text);
      const [first] = this.lines;
      if (first?.kind !== "header") throw new RangeError(`${path} is not the file of a benchmark`);
      if (first.commit !== header.commit || first.processor !== header.processor)
        process.stderr.write(
          `Taken up from ${path}: measured at ${first.commit} on ${first.processor}, now ${header.commit} on ${header.processor}\n`,
        );
    } else {
      this.lines = [];
      writeFileSync(path, "");
      this.add(header);
    }
  }

  get header(): HeaderLine {
    const [first] = this.lines;
    if (first?.kind !== "header") throw new RangeError(`${this.path} has no header`);
    return first;
  }

  get samples(): readonly Sample[] {
    return this.lines.filter((line) => line.kind === "sample");
  }

  add(line: Line): void {
    this.lines.push(line);
    appendFileSync(this.path, `${JSON.stringify(line)}\n`);
  }

  /**
   * True if this repetition of a cell need not be measured: it was measured already, or an earlier repetition did not
   * converge, so that this one would not either.
   */
  isDone(cell: Pick<Sample, "workload" | "link" | "contender">, repetition: number): boolean {
    const key = cellKey(cell);
    return this.samples.some(
      (one) =>
        cellKey(one) === key && (one.repetition === repetition || (!one.completed && one.repetition < repetition)),
    );
  }
}

/** Parses the lines of a file. A run that was killed may have left half a line, which is left out. */
function readLines(text: string): Line[] {
  return text.split("\n").flatMap((text) => {
    try {
      return text === "" ? [] : [JSON.parse(text) as Line];
    } catch {
      return [];
    }
  });
}
