/**
 * A program that stands for QEMU as the command of a guest definition: it serves a monitor at the path behind -qmp,
 * waits for a migration, and ends by `quit`. It has 1 MiB of memory, one processor and no device.
 *
 *     ends-at COMMAND     it ends with a message when it is told this command
 *     refuses COMMAND     it answers this command with an error
 */
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import { type Command, greeting, Monitor } from "./fake-monitor.ts";

const after = (word: string): string | undefined => process.argv[process.argv.indexOf(word, 2) + 1];
const wordAfter = (word: string): string | undefined => (process.argv.includes(word) ? after(word) : undefined);

const path = (wordAfter("-qmp") ?? "").replace(/^unix:|,.*$/g, "");
const [endsAt, refuses] = [wordAfter("ends-at"), wordAfter("refuses")];
const RAM_BLOCKS = "pc.ram    4 KiB  0x0000000000000000 0x0000000000100000 0x0000000000100000";

function answer({ execute, arguments: given = {} }: Command): unknown {
  switch (execute) {
    case "query-status":
      return { status: "inmigrate", running: false };
    case "query-cpus-fast":
      return [{ "cpu-index": 0, "qom-path": "/cpu", "thread-id": process.pid, target: "x86_64" }];
    case "qom-get":
      if (given.property !== "type") return {};
      return given.path === "/cpu" ? "qemu64-x86_64-cpu" : "pc-q35-8.1-machine";
    case "human-monitor-command":
      return given["command-line"] === "info ramblock" ? RAM_BLOCKS : "";
    case "migrate-set-capabilities":
    case "quit":
      return {};
    default:
      return [];
  }
}

const server = createServer((socket) => {
  const monitor = new Monitor(socket, (command) => {
    const { execute, id } = command;
    if (execute === endsAt) {
      process.stderr.write(`${execute} is too much for me\n`);
      process.exit(1);
    }
    if (execute === refuses) monitor.reply({ error: { class: "GenericError", desc: "it does not say" }, id });
    else monitor.reply({ return: answer(command), id });
    if (execute === "quit") process.exit(0);
  });
  monitor.reply(greeting());
});
rmSync(path, { force: true });
server.listen(path);
