/** Tests how a QEMU is found to be able to go into post-copy. */
import t, { type Test } from "tap";
import { enablePostcopy, refusePostcopy, whyNoPostcopy } from "../../../../shared/qemu/inspect/postcopy-ability.ts";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { type Command, greetingOf, Monitor, serve } from "../../../support/fake-monitor.ts";

const VERSION = { major: 10, minor: 2, micro: 2 };

/** Starts a QEMU that answers what the test wants; a text is an error. */
async function fakeQemu(
  t: Test,
  answer: (command: Command) => unknown,
  version = VERSION,
): Promise<{ qmp: QmpClient; asked: Command[] }> {
  const asked: Command[] = [];
  const path = await serve(t, (socket) => {
    const monitor = new Monitor(socket, (command) => {
      asked.push(command);
      const said = answer(command);
      if (typeof said === "string") monitor.reply({ error: { class: "GenericError", desc: said }, id: command.id });
      else monitor.reply({ return: said, id: command.id });
    });
    monitor.reply(greetingOf(version));
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  return { qmp, asked };
}

const states = (asked: readonly Command[]): unknown[] =>
  asked.map((one) => JSON.stringify(one.arguments?.capabilities ?? one.execute));
const ON = '[{"capability":"postcopy-ram","state":true}]';
const OFF = '[{"capability":"postcopy-ram","state":false}]';

t.test("a QEMU that can go into post-copy is left as it was", async (t) => {
  const { qmp, asked } = await fakeQemu(t, () => ({}));
  t.equal(await whyNoPostcopy(qmp), undefined);
  t.same(states(asked), [ON, OFF]);
});

for (const [words, advice] of [
  ["Postcopy is not supported: Userfaultfd not available: Operation not permitted", /vm\.unprivileged_userfaultfd=1/],
  ["Postcopy is not supported: Host backend files need to be TMPFS or HUGETLBFS only", /on tmpfs/],
  ["Postcopy is not supported: vhost-user backend not capable of postcopy", /vhost-user backend that takes part/],
  ["Postcopy is not supported: something new", /post-copy: something new$/],
] as const)
  t.test(`the error "${words}" is reported with what to do`, async (t) => {
    const { qmp, asked } = await fakeQemu(t, () => words);
    const refusal = await whyNoPostcopy(qmp);
    t.match(refusal, { code: "postcopy-unavailable", message: advice });
    t.match(refusal?.message, words.replace("Postcopy is not supported: ", "cannot go into post-copy: "));
    t.same(states(asked), [ON], "a capability that QEMU did not take is not switched off");
  });

t.test("a QEMU that could go into post-copy when asked, and now cannot, ends the migration", async (t) => {
  const { qmp } = await fakeQemu(t, () => "Postcopy is not supported: Userfaultfd not available");
  await t.rejects(enablePostcopy(qmp), {
    code: "qemu-failed",
    role: "destination",
    message: /Userfaultfd not available.*it was able to when the migration was agreed on/,
  });
  const other = await fakeQemu(t, () => ({}));
  await enablePostcopy(other.qmp);
  t.same(states(other.asked), [ON], "the capability stays switched on");
});

t.test("a QEMU that does not answer is no reason against post-copy", async (t) => {
  const { qmp } = await fakeQemu(t, () => ({}));
  qmp.close();
  await t.rejects(whyNoPostcopy(qmp), { code: "qmp-disconnected" });
});

const CAPABILITY = [{ capability: "postcopy-ram", state: false }];
const OBJECTS = [
  { name: "type", type: "string" },
  { name: "pc.ram", type: "child<memory-backend-ram>" },
  { name: "dax", type: "child<memory-backend-file>" },
  { name: "fd", type: "child<memory-backend-memfd>" },
];
/** Answers as a source with these backends. */
const source =
  (capabilities: unknown, backends: unknown, others: Readonly<Record<string, unknown>> = {}) =>
  ({ execute }: Command): unknown => {
    const answers = { "query-migrate-capabilities": capabilities, "query-memdev": backends, "qom-list": OBJECTS };
    return { ...answers, ...others }[execute];
  };

t.test("a source without the capability, and files that others may share, have codes of their own", async (t) => {
  const codes = async (capabilities: unknown, backends: unknown): Promise<string[]> => {
    const { qmp, asked } = await fakeQemu(t, source(capabilities, backends));
    const refusals = await refusePostcopy(qmp);
    t.ok(
      asked.every(({ execute }) => /^q/.test(execute)),
      "the source is only asked",
    );
    return refusals.map(({ code }) => code);
  };
  const private_ = { id: "pc.ram", share: false };
  t.same(await codes(CAPABILITY, [private_]), []);
  t.same(await codes([], [private_]), ["postcopy-unavailable"]);
  t.same(await codes(CAPABILITY, [private_, { id: "dax", share: true }]), ["postcopy-shared-memory"]);
  t.same(await codes(CAPABILITY, [{ id: "dax", share: false }]), []);
  t.same(await codes(CAPABILITY, [{ id: "fd", share: true }, { share: true }]), [], "nobody else shares this memory");
  t.same(await codes([], [{ id: "dax", share: true }]), ["postcopy-unavailable", "postcopy-shared-memory"]);
});

t.test("an emulated guest of a QEMU that loses its writes is refused, and a guest of KVM is not", async (t) => {
  const codes = async (major: number, minor: number, enabled: boolean): Promise<string[]> => {
    const kvm = { "query-kvm": { enabled, present: true } };
    const answer = source(CAPABILITY, [], kvm);
    const { qmp } = await fakeQemu(t, answer, { major, minor, micro: 3 });
    return (await refusePostcopy(qmp)).map(({ code, message }) => `${code}: ${message.split(" emulates")[0]}`);
  };
  t.same(await codes(10, 2, false), []);
  t.same(await codes(11, 0, true), []);
  t.same(await codes(11, 0, false), ["postcopy-emulated: QEMU 11.0.3"]);
  t.same(await codes(12, 1, false), ["postcopy-emulated: QEMU 12.1.3"], "each later version is refused too");
});
