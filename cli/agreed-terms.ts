/**
 * Shows an operator the terms on which the two agents agreed. Each term is shown once, as soon as it is known, which is
 * before the first page is sent. The only state is the list of terms that were shown.
 */
import { printable } from "./figures.ts";

type Terms = Readonly<Record<string, string>>;

export class AgreedTerms {
  private readonly said = new Set<string>();

  /**
   * Returns the lines of the terms that were not shown yet, and counts these terms as shown from now on. Terms can come
   * later: the link is measured after the handshake.
   */
  news(negotiated: Terms): readonly string[] {
    const lines = Object.entries(negotiated)
      .filter(([name]) => !this.said.has(name))
      .map(([name, value]) => termLine(name, value));
    if (lines.length > 0 && this.said.size === 0) lines.unshift("Agreed:");
    for (const name of Object.keys(negotiated)) this.said.add(name);
    return lines;
  }
}

export const termLine = (name: string, value: string): string => `  ${printable(name)}: ${printable(value)}`;
