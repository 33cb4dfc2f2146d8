/** Whom a certificate is for, and what is wrong with one: the words that both sides of a connection use. */
import type { PeerCertificate } from "node:tls";

/**
 * One entry of what Node shows as "DNS:a, IP Address:192.0.2.1". An entry that could be mistaken for two is quoted there;
 * such names are nobody's.
 */
const ENTRY = /(?:^|, )([A-Za-z0-9. ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?=, |$)/y;

/** The DNS names and IP addresses of a certificate; its common name only when it has no alternative names at all. */
export function namesOf(certificate: Pick<PeerCertificate, "subject" | "subjectaltname">): readonly string[] {
  const { subjectaltname: alternatives, subject } = certificate;
  if (alternatives === undefined) {
    // several are an array
    const common: unknown = subject?.CN;
    return typeof common === "string" ? [common.toLowerCase()] : [];
  }
  const names: string[] = [];
  ENTRY.lastIndex = 0;
  while (ENTRY.lastIndex < alternatives.length) {
    const entry = ENTRY.exec(alternatives);
    // a text that is not understood whole tells nothing
    if (entry === null) return [];
    const [, kind, name = ""] = entry;
    if ((kind === "DNS" || kind === "IP Address") && name !== "" && !name.startsWith('"'))
      names.push(name.toLowerCase());
  }
  return names;
}

/** @returns the name that is on the list */
export const listedName = (names: readonly string[], list: readonly string[]): string | undefined => {
  const wanted = new Set(list.map((one) => one.toLowerCase()));
  return names.find((name) => wanted.has(name));
};

/** For messages: names come from a peer, so they are bounded. */
export function showNames(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => name.slice(0, 100).replace(/[^\x20-\x7e]/g, "?"));
  if (names.length > shown.length) shown.push("…");
  return shown.length === 0 ? "nobody" : shown.join(", ");
}

/** Why a chain is not accepted, by OpenSSL's code: "the certificate of X" goes on so. */
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

/** The same codes where only OpenSSL's words are known. */
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

export const codeOfWords = (text: string): string | undefined => WORDS.find(([words]) => text.includes(words))?.[1];
