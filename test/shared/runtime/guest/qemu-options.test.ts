/**
 * Tests the options of QEMU with which no guest can come to a host. What is refused here was seen to wait or to leave.
 */
import t from "tap";
import {
  lacksSandbox,
  memoryBoundOf,
  memoryOf,
  optionMistakes,
  SANDBOX,
} from "../../../../shared/runtime/guest/qemu-options.ts";

const QMP = "/run/ferry/web.qmp";
const mistakes = (...words: readonly string[]): readonly string[] =>
  optionMistakes(["qemu-system-x86_64", ...words], QMP);

t.test("an option that is the agent's, or by which QEMU leaves or waits, is refused by name", async (t) => {
  for (const option of ["-S", "--S", "-incoming", "--incoming", "-daemonize", "--daemonize", "-preconfig"])
    t.match(mistakes("-m", "512", option, "defer"), [
      new RegExp(`must not have ${option}, which|${option}, with which`),
    ]);
  t.match(mistakes("-daemonize"), [/with which QEMU leaves the process that the destination agent starts/]);
  t.same(mistakes("-name", "daemonize", "-pidfile", "/run/web.pid", "-snapshot"), []);
});

t.test("a character device that waits for a client is refused by name", async (t) => {
  for (const [option, value] of [
    ["-serial", "unix:/run/s,server"],
    ["-serial", "unix:/run/s,server=on"],
    ["--serial", "unix:/run/s,server=y"],
    ["-serial", "unix:/run/s,server=on,wait"],
    ["-serial", "unix:/run/s,server=on,wait=off,wait=on"],
    ["-serial", "unix:/run/a,,b,server=on"],
    ["-serial", "mon:unix:/run/s,server=on"],
    ["-serial", "tcp:127.0.0.1:4444,server"],
    ["-serial", "tcp::4444,server,wait=yes"],
    ["-serial", "telnet:127.0.0.1:4444,server=on"],
    ["-serial", "tn3270:127.0.0.1:4444,server=on"],
    ["-serial", "websocket:127.0.0.1:4444,server=on"],
    ["-parallel", "unix:/run/s,server"],
    ["-monitor", "unix:/run/s,server"],
    ["-qmp", "unix:/run/other.qmp,server"],
    ["-qmp-pretty", "unix:/run/other.qmp,server"],
    ["-debugcon", "unix:/run/s,server"],
    ["-gdb", "unix:/run/s,server"],
    ["-chardev", "socket,id=c,path=/run/s,server=on"],
    ["-chardev", "socket,id=c,path=/run/s,server"],
    ["-chardev", "backend=socket,id=c,path=/run/s,server"],
    ["-chardev", "socket,id=c,host=127.0.0.1,port=0,server=on,telnet=on"],
  ] as const) {
    const found = mistakes(option, value);
    t.equal(found.length, 1, `${option} ${value}`);
    t.ok(found[0]?.includes(`has ${option} ${value}, with which QEMU waits for a client`));
    t.match(found, [/add wait=off/]);
  }
});

t.test("a character device that waits for no client is not refused", async (t) => {
  for (const [option, value] of [
    ["-serial", "unix:/run/s,server=on,wait=off"],
    ["-serial", "unix:/run/s,server,nowait"],
    ["-serial", "unix:/run/s,nowait,server"],
    ["-serial", "unix:/run/s,server=on,wait=n"],
    ["-serial", "unix:/run/s"],
    ["-serial", "unix:/run/s,server=off,wait=on"],
    ["-serial", "file:/run/s,server"],
    ["-serial", "stdio"],
    ["-serial", "mon:stdio"],
    ["-serial", "chardev:c"],
    ["-gdb", "tcp::1234"],
    ["-gdb", "tcp::1234,server,wait"],
    ["-chardev", "socket,id=c,path=/run/s,server=on,wait=off"],
    ["-chardev", "socket,id=c,path=/run/s,reconnect-ms=1000"],
    ["-chardev", "file,id=c,path=/run/s,server=on"],
    ["-netdev", "stream,id=n,server=on,addr.type=unix,addr.path=/run/s"],
    ["-append", "unix:/run/s,server"],
    ["-qmp", `unix:${QMP},server`],
  ] as const)
    t.same(mistakes(option, value), [], `${option} ${value}`);
});

t.test("a path of a socket that is too long is reported with its option", async (t) => {
  const path = `/run/${"x".repeat(103)}`;
  for (const [option, value] of [
    ["-qmp", `unix:${path},server=on,wait=off`],
    ["-serial", `unix:${path}`],
    ["-monitor", `unix:${path},server=on,wait=off`],
    ["-chardev", `socket,id=c,path=${path},server=on,wait=off`],
    ["-vnc", `unix:${path}`],
    ["-netdev", `stream,id=n,addr.type=unix,addr.path=${path}`],
    ["-netdev", `dgram,id=n,local.type=unix,local.path=${path}`],
  ] as const)
    t.match(
      mistakes(option, value),
      [/whose path has 108 bytes, more than the 107 that a socket path may have/],
      option,
    );
  t.same(mistakes("-serial", `unix:${path.slice(1)}`, "-serial", `file:${path}`, "-chardev", `file,path=${path}`), []);
});

t.test("all mistakes are reported at once", async (t) => {
  t.match(mistakes("-daemonize", "-serial", "unix:/run/s,server", "-preconfig"), [/daemonize/, /-serial/, /preconfig/]);
});

t.test("a command lacks a sandbox unless it forbids QEMU to start programs", async (t) => {
  for (const has of [
    ["-sandbox", SANDBOX],
    ["--sandbox", "on,spawn=deny"],
    ["-sandbox", "enable=on,spawn=deny"],
  ])
    t.notOk(lacksSandbox(["qemu", ...has]), has.join(" "));
  for (const lacks of [
    [],
    ["-sandbox"],
    ["-sandbox", "on"],
    ["-sandbox", "off,spawn=deny"],
    ["-sandbox", "on,spawn=allow"],
    ["-sandbox", "on,spawn=deny,spawn=allow"],
    ["-name", "-sandbox on,spawn=deny"],
  ])
    t.ok(lacksSandbox(["qemu", ...lacks]), lacks.join(" "));
});

t.test("a guest's memory is at most that of -m and of its memory backends", async (t) => {
  const MIB = 2 ** 20;
  for (const [options, bytes] of [
    [[], 128 * MIB],
    [["-m", "256"], 256 * MIB],
    [["-machine", "q35,memory-backend=ram", "-object", "memory-backend-memfd,id=ram,size=2G"], (2048 + 128) * MIB],
    [["-m", "1G", "-object", "qom-type=memory-backend-ram,size=4096,id=x"], 1024 * MIB + 4096],
    [["-m", "1G", "--object", '{"qom-type": "memory-backend-file", "id": "x", "size": 8192}'], 1024 * MIB + 8192],
    [["-m", "1G", "-object", "secret,id=size,size=4G", "-object", '{"qom-type":"secret","size":9}'], 1024 * MIB],
    [["-m", "1G,maxmem=90T", "-device", "pc-dimm,size=4G", "-object"], 1024 * MIB],
  ] as const)
    t.equal(memoryBoundOf(["qemu", ...options]), bytes, options.join(" "));
});

t.test("the guest's memory is what -m says, as QEMU reads it", async (t) => {
  const MIB = 2 ** 20;
  for (const [value, bytes] of [
    ["512", 512 * MIB],
    ["2G", 2048 * MIB],
    ["1.5g", 1536 * MIB],
    ["64K", 65_536],
    ["size=2G,slots=2,maxmem=8G", 2048 * MIB],
    ["maxmem=8G,size=300", 300 * MIB],
    ["512,slots=2,maxmem=8G", 512 * MIB],
    ["1T", MIB * MIB],
  ] as const) {
    t.equal(memoryOf(["qemu", "-m", value]), bytes, value);
    t.equal(
      memoryOf(["numactl", "-m", "0", "qemu", "--m", value, "-S"]),
      bytes,
      `the last -m counts, which is ${value}`,
    );
  }
  for (const value of ["", "much", "-1", "size", "maxmem=8G", "1e9", "0x10"])
    t.equal(memoryOf(["qemu", "-m", value]), undefined, value);
  t.equal(memoryOf(["qemu", "-m"]), undefined);
  t.equal(memoryOf(["qemu"]), undefined);
});
