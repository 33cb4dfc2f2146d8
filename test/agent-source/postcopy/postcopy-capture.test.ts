/** Tests `PostcopyCapture`: post-copy's part of QEMU's stream, and the page requests of the destination. */
import t from "tap";
import { PageSet } from "../../../shared/page/page-set.ts";
import { pageIndex } from "../../../shared/units.ts";
import { eventually } from "../../support/bounded.ts";
import { BLOCKS, capturing, PACKAGE, PAGES, SECTION } from "../../support/capturing.ts";
import { pagesOf, turn } from "../../support/sending.ts";

t.test("a pending page that QEMU discards comes again, and every other pending page is discarded too", async (t) => {
  const { postcopy, scheduler, capture, sendPackage, frames, discarded, calls } = capturing();
  for (const page of [5, 6, 7]) capture(page, page);
  scheduler.captureZero(pageIndex(20));
  scheduler.captureZero(pageIndex(30));
  postcopy.discard(6, 1);
  postcopy.discard(30, 2);
  await turn();
  t.same(frames, [], "nothing is sent while QEMU discards");
  sendPackage(PACKAGE);
  await turn();
  t.same(discarded(), [5, 6, 7, 20, 30, 31]);
  t.same(
    frames.map(({ kind }) => kind),
    ["discards", "package", "pages"],
  );
  const [, made, pages] = frames;
  t.equal(made?.body.readUInt32LE(), PACKAGE.length);
  t.ok(made?.body.subarray(4).equals(PACKAGE));
  t.same(pagesOf(pages), [20, 5, 7], "the agent sends the pages that QEMU does not send again");
  t.equal(postcopy.awaitedPages, 3);
  t.equal(calls.packaged, 1);
});

t.test("when QEMU's discards are complete it is asked for the rest, the hottest pages first", async (t) => {
  const { postcopy, scheduler, capture, sendPackage, asked } = capturing();
  for (let i = 0; i < 4; i++) capture(100, 7);
  scheduler.pages.drop(pageIndex(100));
  for (const page of [395, 100, 10]) postcopy.discard(page, 1);
  t.same(asked, []);
  sendPackage(PACKAGE);
  t.same(asked, [100, 10, 395]);
});

t.test("until the guest runs at the destination, only the pages flow for which it waits", async (t) => {
  const { postcopy, capture, sendPackage, frames, asked, offer } = capturing();
  for (const page of [5, 7]) capture(page, page);
  postcopy.discard(10, 20);
  sendPackage(PACKAGE, false);
  t.same(asked, []);
  t.notOk(offer(10), "no page is read");
  postcopy.request(12, 1);
  postcopy.request(7, 1);
  t.same(asked, [12]);
  t.ok(offer(12), "the requested page is read");
  await turn();
  const pages = (): number[][] => frames.map((frame) => pagesOf(frame)).filter(({ length }) => length > 0);
  t.same(pages(), [[7], [12]]);
  postcopy.flow();
  await eventually(() => pages()[2], { timeoutMs: 20_000, what: "the page for which the guest does not wait" });
  t.same(pages(), [[7], [12], [5]]);
  t.equal(asked.length, 20);
});

t.test("QEMU is asked for no more pages than the link takes soon", async (t) => {
  const { postcopy, sendPackage, asked, offer } = capturing();
  postcopy.discard(0, PAGES);
  sendPackage(PACKAGE);
  t.equal(asked.length, 256);
  postcopy.askOn();
  t.equal(asked.length, 256);
  for (let page = 0; page < 63; page++) offer(page);
  postcopy.askOn();
  t.equal(asked.length, 256, "so few pages are not worth a request");
});

t.test("a page that comes a second time is left out", async (t) => {
  const { postcopy, sendPackage, offer, sender, frames } = capturing();
  postcopy.discard(6, 2);
  sendPackage(PACKAGE);
  t.ok(offer(6));
  t.ok(offer(6));
  t.ok(offer(9), "this page was not discarded");
  t.ok(offer(7, 0));
  t.ok(offer(7, 0));
  sender.pump();
  await turn();
  t.same(frames.flatMap((frame) => pagesOf(frame)).sort(), [6, 7]);
  t.equal(postcopy.repeated, 3);
  t.equal(postcopy.awaitedPages, 0);
});

t.test("QEMU is asked once for a page for which the guest waits, and the page goes as soon as it comes", async (t) => {
  const { postcopy, sendPackage, asked, calls, offer, sender, frames } = capturing();
  postcopy.discard(0, PAGES);
  sendPackage(PACKAGE);
  t.notOk(asked.includes(395));
  const before = calls.wanted;
  postcopy.request(395, 1);
  postcopy.request(395, 1);
  t.same(asked.slice(256), [395]);
  postcopy.request(3, 1);
  t.equal(asked.length, 257, "QEMU was asked for this page before");
  t.equal(calls.wanted - before, 3);
  for (let page = 100; page < 110; page++) offer(page);
  offer(395);
  sender.pump();
  await turn();
  const [first] = frames.filter(({ kind }) => kind === "pages");
  t.same(pagesOf(first), [395], "the page goes ahead of others that came before it");
});

t.test("while the link takes nothing, nothing is read but a page for which the guest waits", async (t) => {
  const { postcopy, sendPackage, offer } = capturing({ creditWindowBytes: 1 });
  postcopy.discard(0, PAGES);
  sendPackage(PACKAGE);
  let page = 0;
  while (page < PAGES && offer(page)) page++;
  t.equal(page, 256);
  postcopy.request(300, 1);
  for (; page < 300; page++) t.ok(offer(page));
  t.ok(offer(300));
  t.notOk(offer(301), "nothing more is read once the page is here");
});

t.test("a request names 1024 pages at most, however many the guest has", async (t) => {
  const { postcopy } = capturing({ pageCount: 4096 });
  postcopy.request(0, 1024);
  for (const count of [1025, 4096])
    t.throws(() => postcopy.request(0, count), {
      code: "peer-invalid",
      message: new RegExp(`asks for ${count} pages`),
    });
});

t.test("requests for pages that do not exist are refused", async (t) => {
  const { postcopy, sendPackage, asked } = capturing();
  const refused = (first: number, count: number): void =>
    void t.throws(() => postcopy.request(first, count), { code: "peer-invalid", message: /of 400/ });
  refused(0, 0);
  refused(400, 1);
  refused(0, 401);
  refused(2 ** 32 - 1, 2 ** 32 - 1);
  postcopy.request(0, 400);
  t.same(asked, [], "before the package no page is missing");
  sendPackage(PACKAGE);
  postcopy.request(0, 400);
  t.same(asked, [], "no page is missing here either");
});

t.test("pings are answered, and the pongs of the destination's QEMU are passed on", async (t) => {
  const { postcopy, pongs } = capturing();
  postcopy.ping(2);
  postcopy.pong(3);
  t.same(pongs, [2, 3]);
});

t.test("a resumed post-copy sends the pages that are missing, and leaves out the others", async (t) => {
  const { postcopy, offer, sender, frames, asked } = capturing();
  const missing = new PageSet(PAGES);
  missing.addRange(40, 3);
  missing.add(395);
  postcopy.resume(missing, { blocks: BLOCKS, ramSectionId: SECTION }, false);
  postcopy.askOn();
  postcopy.request(41, 1);
  t.same(asked, [], "QEMU takes no requests here, and sends what it has");
  for (let page = 38; page < 44; page++) offer(page);
  offer(395, 0);
  sender.pump();
  await eventually(() => frames[1], { timeoutMs: 20_000, what: "the pages for which the guest does not wait" });
  t.same(frames.flatMap((frame) => pagesOf(frame)).sort(), [395, 40, 41, 42]);
  t.equal(postcopy.awaitedPages, 0);
  t.equal(postcopy.repeated, 0);
});

t.test("a request for no pages, too many, or pages beyond the guest's is the destination's fault", (t) => {
  const { postcopy } = capturing();
  for (const [first, count] of [
    [0, 1025],
    [0, 2 ** 32],
    [0, 0],
    [PAGES, 1],
  ] as const)
    t.throws(() => postcopy.request(first, count), { code: "peer-invalid", message: /asks for \d+ pages from page/ });
  t.end();
});
