/** Tests the names that are read from certificates, also from certificates that were made to deceive. */
import t from "tap";
import {
  chainProblem,
  codeOfWords,
  listedName,
  namesOf,
  showNames,
} from "../../../../shared/link/tls/certificate-names.ts";

const subject = { C: "", ST: "", L: "", O: "", OU: "", CN: "Common" };

t.test("the names of a certificate are its DNS names and IP addresses, in small letters", async (t) => {
  const subjectaltname =
    "DNS:Alpha.example, URI:spiffe://x/y, IP Address:192.0.2.1, email:a@b, IP Address:2001:DB8:0:0:0:0:0:1";
  t.same(namesOf({ subject, subjectaltname }), ["alpha.example", "192.0.2.1", "2001:db8:0:0:0:0:0:1"]);
});

t.test("the common name counts only where there are no alternative names", async (t) => {
  t.same(namesOf({ subject }), ["common"]);
  t.same(namesOf({ subject, subjectaltname: "URI:spiffe://x/y" }), []);
  t.same(
    namesOf({ subject: { ...subject, CN: ["a", "b"] as unknown as string } }),
    [],
    "a common name that is one of several does not count",
  );
});

t.test("a name that contains another name gives no name", async (t) => {
  const inside = 'DNS:"evil, DNS:alpha", DNS:mallory';
  t.same(namesOf({ subject, subjectaltname: inside }), ["mallory"]);
  t.same(namesOf({ subject, subjectaltname: 'URI:"x\\u002c DNS:alpha", DNS:mallory' }), ["mallory"]);
  t.same(
    namesOf({ subject, subjectaltname: 'DNS:evil", DNS:alpha' }),
    [],
    "a text that is not understood gives no name",
  );
});

t.test("names are compared with a list as wholes: there are no wildcards and no parts", async (t) => {
  t.equal(listedName(["alpha", "192.0.2.1"], ["Alpha"]), "alpha");
  t.equal(listedName(["*.example"], ["a.example"]), undefined);
  t.equal(listedName(["a.example"], ["*.example", "example", "a"]), undefined);
  t.equal(listedName([], [""]), undefined);
});

t.test("names are shown bounded and printable", async (t) => {
  t.equal(showNames([]), "nobody");
  t.equal(showNames(["a\u001b[31m"]), "a?[31m");
  t.ok(showNames(Array.from({ length: 1000 }, () => "x".repeat(1000))).length < 600);
});

t.test("problems are found by their code, and by OpenSSL's words", async (t) => {
  t.equal(chainProblem("SOMETHING_NEW"), "is not accepted (SOMETHING_NEW)");
  t.equal(
    chainProblem("CERT_HAS_EXPIRED", { valid_from: "", valid_to: "Nov 22 04:39:41 2026 GMT" }),
    "expired 2026-11-22T04:39:41.000Z",
  );
  t.equal(codeOfWords("Last error: Error: certificate has expired. Resolution note:"), "CERT_HAS_EXPIRED");
  t.equal(codeOfWords("connect ECONNREFUSED"), undefined);
});
