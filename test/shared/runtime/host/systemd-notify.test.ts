/** Tests how systemd is told the state of an agent. */
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { notifySystemd } from "../../../../shared/runtime/host/systemd-notify.ts";

t.test("systemd is told by its own program, with nothing but the socket in its environment", async (t) => {
  const folder = t.testdir({
    notify: '#!/bin/sh\nfor one in "$@"; do echo "$one"; done >"$0.told"\n/usr/bin/env >>"$0.told"\n',
  });
  const program = join(folder, "notify");
  chmodSync(program, 0o755);
  const env = { NOTIFY_SOCKET: "/run/systemd/notify", SECRET: "not for others" };
  const told = async (state: Parameters<typeof notifySystemd>[0]): Promise<string> => {
    await notifySystemd(state, env, ["/nowhere/systemd-notify", program]);
    return readFileSync(`${program}.told`, "utf8");
  };
  t.match(await told({ ready: true, status: "serving\non port 1" }), /^READY=1\nSTATUS=serving on port 1\n/);
  t.match(await told({ watchdog: true }), /^WATCHDOG=1\n/);
  t.match(await told({ stopping: true }), /^STOPPING=1\n[\s\S]*NOTIFY_SOCKET=\/run\/systemd\/notify/);
  t.notMatch(await told({ stopping: true }), /SECRET/);
});

t.test("without systemd no program is run", async (t) => {
  await notifySystemd({ ready: true }, {}, ["/bin/false"]);
  await notifySystemd({ ready: true }, { NOTIFY_SOCKET: "" }, ["/bin/false"]);
  t.pass();
});

t.test("a systemd that cannot be told is a fault that says what to do", async (t) => {
  const env = { NOTIFY_SOCKET: "/nowhere/notify" };
  await t.rejects(notifySystemd({ ready: true }, env, ["/nowhere/x"]), {
    code: "configuration",
    message: /no \/nowhere\/x/,
  });
  await t.rejects(notifySystemd({ ready: true }, env, ["/bin/false"]), {
    code: "configuration",
    advice: /NotifyAccess=all/,
  });
  if (existsSync("/usr/bin/systemd-notify"))
    await t.rejects(notifySystemd({ ready: true }, env), { code: "configuration" });
});
