/** Whom a certificate is for, and what is wrong with it, in the words that both sides of a connection use. */
import type { PeerCertificate } from "node:tls";

/**
 * Matches one entry of the alternative names that Node shows, such as "DNS:a, IP Address:192.0.2.1". Node quotes an
 * entry that could be mistaken for two. Such an entry does not count as a name.
 */
const ENTRY = /(?:^|, )([A-Za-z0-9. ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?=, |$)/y;

/**
 * Returns the DNS names and IP addresses of a certificate, in lower case. Its common name counts only when it has no
 * alternative names at all.
 */
export function namesOf(certificate: Pick<PeerCertificate, "subject" | "subjectaltname">): readonly string[] {
  const { subjectaltname: alternatives, subject } = certificate;
  if (alternatives === undefined) {
    // several common names come as an array, and none of them counts
    const common: unknown = subject?.CN;
    return typeof common === "string" ? [common.toLowerCase()] : [];
  }
  const names: string[] = [];
  ENTRY.lastIndex = 0;
  while (ENTRY.lastIndex < alternatives.length) {
    const entry = ENTRY.exec(alternatives);
    // a text that is not understood as a whole tells no name
    if (entry === null) return [];
    const [, kind, name = ""] = entry;
    if ((kind === "DNS" || kind === "IP Address") && name !== "" && !name.startsWith('"'))
      names.push(name.toLowerCase());
  }
  return names;
}

/** @returns the first of the names that is on the list; undefined when none is */
export const listedName = (names: readonly string[], list: readonly string[]): string | undefined => {
  const wanted = new Set(list.map((one) => one.toLowerCase()));
  return names.find((name) => wanted.has(name));
};

/** Shows names in a message. The names come from a peer, so their number and lengths are bounded. */
export function showNames(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => name.slice(0, 100).replace(/[^\x20-\x7e]/g, "?"));
  if (names.length > shown.length) shown.push("…");
  return shown.length === 0 ? "nobody" : shown.join(", ");
}

/**
 * Says why a chain is not accepted.
 * @param code OpenSSL's code for what is wrong
 * @returns the end of a sentence that begins with "The certificate of X"
 */
export function chainProblem(code: string, certificate?: Pick<PeerCertificate, "valid_from" | "valid_to">): string {
  const day = (text: string | undefined): string => {
    const ms = Date.parse(text ?? "");
    return Number.isNaN(ms) ? "" : ` ${new Date(ms).toISOString()}`;
  };
  switch (code) {
    case "CERT_HAS_EXPIRED":
      return certificate === undefined ? "has expired" : `expired${day(certificate.valid_to)}`;
    case "CERT_NOT_YET_VALID":
      return certificate === undefined ? "is not valid yet" : `is not valid before${day(certificate.valid_from)}`;
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "CERT_SIGNATURE_FAILURE":
      return "is not signed by a CA of tls.ca";
    default:
      return `is not accepted (${code})`;
  }
}

/** OpenSSL's words for its codes, for an error that has only the words. */
const WORDS: readonly (readonly [words: string, code: string])[] = [
  ["certificate has expired", "CERT_HAS_EXPIRED"],
  ["certificate is not yet valid", "CERT_NOT_YET_VALID"],
  ["unable to get issuer certificate", "UNABLE_TO_GET_ISSUER_CERT"],
  ["unable to get local issuer certificate", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"],
  ["unable to verify the first certificate", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
  ["self-signed certificate in certificate chain", "SELF_SIGNED_CERT_IN_CHAIN"],
  ["self-signed certificate", "DEPTH_ZERO_SELF_SIGNED_CERT"],
  ["certificate signature failure", "CERT_SIGNATURE_FAILURE"],
  ["unsupported certificate purpose", "INVALID_PURPOSE"],
  ["unsuitable certificate purpose", "INVALID_PURPOSE"],
];

/** Finds OpenSSL's code by the words in an error. @returns undefined for words that are not known */
export const codeOfWords = (text: string): string | undefined => WORDS.find(([words]) => text.includes(words))?.[1];
