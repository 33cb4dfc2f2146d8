/** The lines of a run, in a file that it can be taken up from. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { cellKey, type HeaderLine, type Line, type Sample } from "./sample.ts";

export class Journal {
  readonly path: string;
  readonly lines: Line[];

  /** With `resume` what is in the file counts; without it the file begins anew. */
  constructor(path: string, header: HeaderLine, resume: boolean) {
    this.path = path;
    mkdirSync(dirname(path), { recursive: true });
    if (resume && existsSync(path)) {
      const text = readFileSync(path, "utf8");
      // the next line is not to be lost with the half one before it
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

  /** Nothing more to measure: it was, or an earlier repetition did not converge, and the next would not either. */
  isDone(cell: Pick<Sample, "workload" | "link" | "contender">, repetition: number): boolean {
    const key = cellKey(cell);
    return this.samples.some(
      (one) =>
        cellKey(one) === key && (one.repetition === repetition || (!one.completed && one.repetition < repetition)),
    );
  }
}

/** A run that was killed may have left half a line. */
function readLines(text: string): Line[] {
  return text.split("\n").flatMap((text) => {
    try {
      return text === "" ? [] : [JSON.parse(text) as Line];
    } catch {
      return [];
    }
  });
}
