/**
 * A client of QEMU's monitor on a unix socket. A monitor has one client at a time: QEMU does not greet a second one.
 * The client knows the envelope of the protocol, the time-outs, and what becomes of calls when the socket ends. What
 * the commands mean is its callers' business. The format is in docs/interop/qmp-spec.rst of QEMU.
 */
import type { Socket } from "node:net";
import { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { connectToQemu } from "../../runtime/guest/guest-socket.ts";
import { qemuEnd } from "./qemu-end.ts";
import { readAnswer, readEvent } from "./qmp-answers.ts";
import { excerpt, QmpLines, type QmpMessage } from "./qmp-lines.ts";
import type {
  QmpCall,
  QmpCallOptions,
  QmpCommandName,
  QmpCommands,
  QmpEvent,
  QmpEventNamed,
  QmpGreeting,
} from "./qmp-types.ts";

/** How long a call or a wait may take by default, milliseconds. */
const DEFAULT_TIMEOUT_MS = 10_000;
/**
 * Commands that are sent out of band where QEMU supports this. In a broken post-copy QEMU's main loop may wait for a
 * vCPU that waits for a page, and only these commands can bring the page (tried with `stop`,
 * docs/design/post-copy.md#the-monitor-of-a-guest-that-waits). QEMU reads them as long as fewer than eight other
 * commands wait to be carried out.
 */
const OUT_OF_BAND: readonly string[] = ["migrate-recover", "migrate-pause"];

interface Pending {
  readonly command: string;
  /** @throws MigrationFault `qmp-protocol` for an answer that is not of the command's type */
  resolve(answer: unknown): void;
  reject(fault: MigrationFault): void;
}

/** A call or another wait, which ends when the monitor does. */
interface Waiter {
  reject(fault: MigrationFault): void;
}

export class QmpClient {
  /** Resolves when the monitor is closed, with the reason; undefined after `close()` or `quit`. Never rejects. */
  readonly closed: Promise<MigrationFault | undefined>;
  private readonly socket: Socket;
  private readonly clock: Clock;
  private readonly lines = new QmpLines();
  private readonly pending = new Map<number, Pending>();
  private readonly waiters = new Set<Waiter>();
  private readonly listeners = new Set<(event: QmpEvent) => void>();
  private readonly resolveClosed: (fault: MigrationFault | undefined) => void;
  /** Tells connect() that QEMU has greeted. */
  private greeted: ((greeting: QmpGreeting) => void) | undefined;
  private greetingSeen: QmpGreeting | undefined;
  /** True when QEMU takes commands out of band. */
  private outOfBand = false;
  /**
   * The id of the next call. The first id is random: where a monitor was handed on, an answer to the earlier client
   * must not be taken for an answer to this client.
   */
  private nextId = Math.floor(Math.random() * 2 ** 40);
  /** Why the monitor is closed; undefined while it is open. */
  private ended: MigrationFault | undefined;
  /** True when QEMU has agreed to `quit`: the end of the monitor is then no fault. */
  private quitting = false;
  /** Why QEMU is about to end, as its event SHUTDOWN says; undefined while QEMU has announced no end. */
  private shutdownReason: string | undefined;

  private constructor(path: string, clock: Clock) {
    this.clock = clock;
    let resolveClosed: (fault: MigrationFault | undefined) => void = () => undefined;
    this.closed = new Promise((resolve) => {
      resolveClosed = resolve;
    });
    this.resolveClosed = resolveClosed;
    this.socket = connectToQemu(path);
    this.socket.on("data", (chunk) => this.receive(chunk));
    this.socket.on("error", (cause) => this.lost(socketFault(path, cause)));
    this.socket.on("close", () =>
      this.lost(new MigrationFault("qmp-disconnected", `QEMU closed its monitor at ${path}`)),
    );
  }

  /**
   * Connects, waits for the greeting and leaves the negotiation mode. `timeoutMs` covers all three.
   * @param clock the clock of all time-outs of this client
   * @throws MigrationFault `qmp-unreachable` when no QEMU listens, `qmp-timeout` when QEMU does not greet; and the
   *   other faults of a socket and of execute()
   */
  static async connect(path: string, options: QmpCallOptions = {}, clock: Clock = systemClock): Promise<QmpClient> {
    const startedAtMs = clock.monotonicMs();
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const client = new QmpClient(path, clock);
    try {
      await client.bounded<QmpGreeting>(
        { ...options, timeoutMs },
        () =>
          new MigrationFault("qmp-timeout", `QEMU's monitor at ${path} did not greet within ${timeoutMs} ms`, {
            advice: "QEMU greets one client at a time: see whether another one is connected",
          }),
        (resolve) => {
          client.greeted = resolve;
          return () => {
            client.greeted = undefined;
          };
        },
      );
      const leftMs = Math.max(1, timeoutMs - (clock.monotonicMs() - startedAtMs));
      const enable = client.outOfBand ? { enable: ["oob"] } : undefined;
      await client.call("qmp_capabilities", enable, { ...options, timeoutMs: leftMs }, () => undefined);
      return client;
    } catch (thrown) {
      client.close();
      throw thrown;
    }
  }

  get isOpen(): boolean {
    return this.ended === undefined;
  }

  /** Why QEMU is about to end, if it has said so. Its monitor may stay open for a while. */
  get announcedEnd(): MigrationFault | undefined {
    return this.shutdownReason === undefined ? undefined : qemuEnd(this.shutdownReason);
  }

  get greeting(): QmpGreeting {
    if (this.greetingSeen === undefined) throw new TypeError("The monitor has not greeted yet");
    return this.greetingSeen;
  }

  /**
   * Sends a command, and waits for its answer. After a time-out QEMU may still carry the command out.
   * @throws MigrationFault `qmp-command` with QEMU's class and text, `qmp-timeout`, `qmp-disconnected`, the fault of
   *   qemuEnd() where QEMU has said why it ends, `qmp-protocol`, or the signal's reason (`cancelled` when that is no
   *   fault)
   */
  execute<C extends QmpCommandName>(command: C, ...rest: QmpCall<C>): Promise<QmpCommands[C]["returns"]> {
    const [args, options] = rest;
    return this.call(command, args, options, (answer) => readAnswer(command, answer));
  }

  /** Calls the listener for each event, in QEMU's order, until the returned function is called. It must not throw. */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    // a wrapper, so that a listener subscribed twice can be removed once
    const entry = (event: QmpEvent): void => listener(event);
    this.listeners.add(entry);
    return () => void this.listeners.delete(entry);
  }

  /**
   * Waits for the first event of this name, from this call on, that the predicate accepts.
   * @throws MigrationFault `qmp-timeout`, the reason why the monitor closed, or the signal's reason
   */
  waitFor<E extends string>(
    name: E,
    predicate?: (event: QmpEventNamed<E>) => boolean,
    options: QmpCallOptions = {},
  ): Promise<QmpEventNamed<E>> {
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const late = (): MigrationFault => new MigrationFault("qmp-timeout", `No ${name} from QEMU within ${timeoutMs} ms`);
    return this.bounded<QmpEventNamed<E>>({ ...options, timeoutMs }, late, (resolve) =>
      this.subscribe((event) => {
        if (isNamed(event, name) && (predicate === undefined || predicate(event))) resolve(event);
      }),
    );
  }

  /** Ends the connection, not QEMU. Calls in flight fail with `qmp-disconnected`. */
  close(): void {
    this.end(new MigrationFault("qmp-disconnected", "The monitor was closed"), true);
  }

  /** @param read turns what QEMU has answered into a value of the type that the command returns, or throws */
  private call<R>(
    command: string,
    args: unknown,
    options: QmpCallOptions = {},
    read: (answer: unknown) => R,
  ): Promise<R> {
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const late = (): MigrationFault =>
      new MigrationFault("qmp-timeout", `QEMU did not answer ${command} within ${timeoutMs} ms`);
    const id = this.nextId++;
    return this.bounded<R>({ ...options, timeoutMs }, late, (resolve, reject) => {
      this.pending.set(id, { command, resolve: (answer) => resolve(read(answer)), reject });
      const verb = this.outOfBand && OUT_OF_BAND.includes(command) ? "exec-oob" : "execute";
      this.socket.write(`${JSON.stringify({ [verb]: command, arguments: args, id })}\r\n`);
      return () => void this.pending.delete(id);
    });
  }

  /**
   * Makes a wait that ends at the latest with the time-out, the signal or the socket.
   * @param late makes the fault of the time-out
   * @param start begins to wait, and returns its clean-up
   */
  private bounded<R>(
    { timeoutMs, signal }: QmpCallOptions & { readonly timeoutMs: number },
    late: () => MigrationFault,
    start: (resolve: (value: R) => void, reject: (fault: MigrationFault) => void) => () => void,
  ): Promise<R> {
    const promise = new Promise<R>((resolve, reject) => {
      if (signal?.aborted) return reject(MigrationFault.from(signal.reason, "cancelled"));
      if (this.ended !== undefined) return reject(this.ended);
      const finish = (): void => {
        this.clock.cancel(timer);
        signal?.removeEventListener("abort", onAbort);
        this.waiters.delete(waiter);
        cleanUp();
      };
      const fail = (fault: MigrationFault): void => {
        finish();
        reject(fault);
      };
      const onAbort = (): void => fail(MigrationFault.from(signal?.reason, "cancelled"));
      const waiter: Waiter = { reject: fail };
      const timer = this.clock.after(timeoutMs, () => fail(late()));
      signal?.addEventListener("abort", onAbort, { once: true });
      this.waiters.add(waiter);
      const cleanUp = start((value) => {
        finish();
        resolve(value);
      }, fail);
    });
    // a wait often begins before the command that causes the event; where both fail, the command reports why, and the
    // wait must not count as an unhandled rejection
    promise.catch(() => undefined);
    return promise;
  }

  private receive(chunk: Uint8Array): void {
    if (this.ended !== undefined) return;
    try {
      this.lines.push(chunk, (message) => this.dispatch(message));
    } catch (thrown) {
      this.end(MigrationFault.from(thrown, "qmp-protocol"));
    }
  }

  private dispatch(message: QmpMessage): void {
    if (this.ended !== undefined) return;
    if (message.event !== undefined) this.announce(message);
    else if (message.QMP !== undefined) this.greet(message.QMP ?? {});
    else if (message.return !== undefined || message.error !== undefined) this.answer(message);
    else
      throw new MigrationFault(
        "qmp-protocol",
        `QEMU's monitor sent neither answer nor event: ${excerpt(Object.keys(message).join(", "))}`,
      );
  }

  private greet(greeting: NonNullable<QmpMessage["QMP"]>): void {
    const { major, minor, micro } = greeting.version?.qemu ?? {};
    if (typeof major !== "number" || typeof minor !== "number" || typeof micro !== "number")
      throw new MigrationFault("qmp-protocol", "QEMU's greeting has no version");
    const { capabilities } = greeting;
    this.outOfBand = Array.isArray(capabilities) && capabilities.includes("oob");
    const name = greeting.version?.package;
    this.greetingSeen = { version: { major, minor, micro }, package: typeof name === "string" ? name : "" };
    this.greeted?.(this.greetingSeen);
  }

  private announce({ event, data, timestamp }: QmpMessage): void {
    if (typeof event !== "string")
      throw new MigrationFault("qmp-protocol", "QEMU's monitor sent an event without a name");
    const timestampUs = numberOr0(timestamp?.seconds) * 1_000_000 + numberOr0(timestamp?.microseconds);
    const fields = readEvent(event, typeof data === "object" && data !== null ? { ...data } : {});
    if (event === "SHUTDOWN") this.shutdownReason = typeof fields.reason === "string" ? fields.reason : undefined;
    // with -no-shutdown QEMU has not ended, and somebody has started its guest again
    if (event === "RESUME") this.shutdownReason = undefined;
    for (const listener of [...this.listeners]) listener({ event, data: fields, timestampUs });
  }

  private answer(message: QmpMessage): void {
    const kind = excerpt(String(message.error?.class));
    const desc = message.error?.desc === undefined ? "no error" : excerpt(String(message.error.desc));
    // QEMU leaves the id out when it could not read the command
    if (typeof message.id !== "number")
      throw new MigrationFault("qmp-protocol", `QEMU's monitor sent an answer without an id: ${desc}`);
    const call = this.pending.get(message.id);
    // the call has ended by its time-out, and nothing waits for its answer any more
    if (call === undefined) return;
    if (message.error === undefined) {
      // QEMU returns an object, a list or a text
      if (message.return === null)
        throw new MigrationFault("qmp-protocol", `QEMU's monitor answered ${call.command} with null`);
      this.quitting ||= call.command === "quit";
      try {
        call.resolve(message.return);
      } catch (thrown) {
        call.reject(MigrationFault.from(thrown, "qmp-protocol"));
      }
    } else call.reject(new MigrationFault("qmp-command", `QEMU refused ${call.command}: ${desc} (${kind})`));
  }

  /** Takes note that the socket has ended. A pending `quit` of this client succeeds by that, without an answer. */
  private lost(fault: MigrationFault): void {
    if (this.ended !== undefined) return;
    if (fault.code !== "qmp-disconnected") {
      this.end(fault);
      return;
    }
    for (const call of [...this.pending.values()]) {
      if (call.command !== "quit") continue;
      this.quitting = true;
      call.resolve({});
    }
    this.end(this.shutdownReason === undefined ? fault : qemuEnd(this.shutdownReason), this.quitting);
  }

  /**
   * Closes the monitor, once, and rejects all calls and waits. Every end of the client comes here.
   * @param meant true when this client has asked for the end
   */
  private end(fault: MigrationFault, meant = false): void {
    if (this.ended !== undefined) return;
    this.ended = fault;
    for (const waiter of [...this.waiters]) waiter.reject(fault);
    this.listeners.clear();
    this.socket.destroy();
    this.resolveClosed(meant ? undefined : fault);
  }
}

const numberOr0 = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);

const isNamed = <E extends string>(event: QmpEvent, name: E): event is QmpEventNamed<E> => event.event === name;

function socketFault(path: string, cause: NodeJS.ErrnoException): MigrationFault {
  if (cause instanceof MigrationFault) return cause;
  if (cause.code === "ENOENT" || cause.code === "ECONNREFUSED")
    return new MigrationFault("qmp-unreachable", `No QEMU listens at ${path}`, { cause });
  if (cause.code === "EACCES" || cause.code === "EPERM")
    return new MigrationFault("qmp-forbidden", `This agent may not use QEMU's monitor at ${path}: ${cause.message}`, {
      cause,
      advice:
        "Start the guest as the agent's user, or give that user the right to write to the socket and to search its directory",
    });
  // the queue of clients that wait for a greeting is full
  if (cause.code === "EAGAIN")
    return new MigrationFault("qmp-timeout", `QEMU's monitor at ${path} takes no more clients`, { cause });
  return new MigrationFault("qmp-disconnected", `QEMU's monitor at ${path} failed: ${cause.message}`, { cause });
}
