/**
 * The configuration keys of the two agents: the meaning of each, its unit and its default. config.ts hands the schema
 * to convict. Every value here is still in the form in which an operator writes it ("256MiB"). The names in the
 * environment and on the command line follow from the key: memory.baseCache is FERRY_MEMORY_BASE_CACHE and
 * --memory-base-cache.
 */

/** The format in which a value is written and checked: FORMATS in config-formats.ts. */
export type Format =
  | "ferry-duration"
  | "ferry-size"
  | "ferry-count"
  | "ferry-boolean"
  | "ferry-text"
  | "ferry-list"
  | "ferry-log-level";

export interface Key<T> {
  readonly doc: string;
  readonly unit: string;
  readonly default: T;
  readonly format: Format;
}

const duration = (value: string, doc: string): Key<string> => ({
  doc,
  unit: "duration",
  default: value,
  format: "ferry-duration",
});
const size = (value: string, doc: string): Key<string> => ({
  doc,
  unit: "bytes",
  default: value,
  format: "ferry-size",
});
const count = (value: number, unit: string, doc: string): Key<number> => ({
  doc,
  unit,
  default: value,
  format: "ferry-count",
});
const text = (value: string, unit: string, doc: string): Key<string> => ({
  doc,
  unit,
  default: value,
  format: "ferry-text",
});
const yesNo = (doc: string, standard = false): Key<boolean> => ({
  doc,
  unit: "true or false",
  default: standard,
  format: "ferry-boolean",
});
const list = (value: string[], unit: string, doc: string): Key<string[]> => ({
  doc,
  unit,
  default: value,
  format: "ferry-list",
});

const linkKeys = () => ({
  giveUpAfter: duration(
    "60s",
    "How long the link between the agents may be down before a migration that was not granted is given up; the guest runs on meanwhile",
  ),
  keepAlive: duration("2s", "How often a silent link is tested; a peer that does not answer for as long again is lost"),
});

const shutdownKeys = () => ({
  grace: duration(
    "30s",
    "How long a stopped agent may take to end its migrations; what is left is taken up when it starts again",
  ),
});

const tlsKeys = () => ({
  insecure: yesNo(
    "Serve and dial TCP without TLS: anybody on that network, and any user of both hosts, can read and take the guests",
  ),
  ca: text(
    "",
    "path, PEM",
    "CAs that sign the certificates of agents and operators; with tls.certificate and tls.key it switches mutual TLS on",
  ),
  certificate: text("", "path, PEM", "Own certificate, then those between it and the CA; read again when it changes"),
  key: text("", "path, PEM", "Private key of tls.certificate, without a passphrase"),
  peers: list(
    [],
    "names, comma-separated",
    "Agents that may call this one, and that it calls: DNS names or IP addresses of their certificates; empty: none",
  ),
  strict: yesNo(
    "Close a connection right after the TLS handshake unless its certificate is listed; the caller is not told why, and cannot ask for health",
  ),
  operators: list(
    [],
    "names, comma-separated",
    "Who may list, migrate, cancel, resolve and use reflection: names in their certificates; empty: nobody over TLS",
  ),
});

const connectionKeys = () => ({
  max: count(256, "connections", "Connections of listed callers, or in clear, at the same time; strangers come on top"),
  perAddress: count(
    64,
    "connections",
    "Of these, the most from one address (of IPv6: one network of 64 bits), or with one name in their certificates",
  ),
  handshakeRate: count(
    50,
    "per second",
    "TLS handshakes with addresses of which no listed caller has come within an hour; one takes about 1 ms of a processor",
  ),
  maxAge: duration("1h", "Longest life of an operator's connection; ferry reconnects and goes on"),
});

const operatorKeys = (role: "source" | "destination") => ({
  socket: text(
    `{runtime}/${role}.sock`,
    "path",
    "Socket at which the operators of this host are served; {runtime} is runtimeDirectory; empty: none",
  ),
  group: text(
    "",
    "name or number of a group",
    "Whose members may use operators.socket, beside root and the agent's user; empty: the agent's own group",
  ),
  maxStreams: count(64, "streams", "Operators who may watch migrations at the same time; one more is refused"),
});

const commonSchema = (role: "source" | "destination") =>
  ({
    listen: list(
      [],
      "host:port or unix:PATH, comma-separated",
      "Addresses at which other agents call, and over TLS operators too; a unix socket lets in root and the agent's user; empty: none",
    ),
    advertise: text(
      "",
      "host:port or unix:PATH",
      "Address under which the other agent reaches this one; empty: the first of listen",
    ),
    guests: { directory: text("/etc/ferry/guests", "path", "Where the guest definitions NAME.json are") },
    runtimeDirectory: text(
      "/run/ferry",
      "path",
      "Sockets and logs of guests and migrations; {runtime} in a guest definition",
    ),
    stateDirectory: text(
      `/var/lib/ferry/${role}`,
      "path",
      "Journal of the migrations; on a local disk that survives a reboot",
    ),
    log: {
      level: {
        doc: "Least severe lines that are logged",
        unit: "trace debug info warn error fatal silent",
        default: "info",
        format: "ferry-log-level",
      },
    },
    rehearsal: yesNo(
      "Compile what moves pages before the first migration, by moving a simulated guest; takes some CPU seconds after the start",
      true,
    ),
    tls: tlsKeys(),
    connections: connectionKeys(),
    link: linkKeys(),
    migrations: {
      max: count(4, "migrations", "Migrations at the same time; one more is refused, and nothing is touched"),
    },
    operators: operatorKeys(role),
    qmp: { timeout: duration("10s", "How long QEMU may take to answer a command") },
    shutdown: shutdownKeys(),
    faults: list(
      [],
      "names, comma-separated",
      "For tests only: faults to commit on purpose (corrupt-page, hold-at=STATE)",
    ),
  }) satisfies SchemaTree;

export const sourceSchema = () => ({
  ...commonSchema("source"),
  destinations: {
    allowed: list(
      [],
      "hosts, host:port, *.domain, networks, unix:PATH, comma-separated",
      "Destinations that operators may name; empty: every address at which an agent of tls.peers answers",
    ),
  },
  memory: {
    baseCache: size(
      "256MiB",
      "Budget of a migration for the pages that deltas refer to; more helps a guest with a larger hot set",
    ),
    arena: size(
      "64MiB",
      "Budget of a migration for the pages that wait to be sent; when it is full, QEMU waits and the guest runs on",
    ),
    keep: text(
      "off",
      "auto, on or off",
      "Keep the memory of a migration, cleared, for the next one, ten minutes at most; auto: where the first touch of memory costs much time",
    ),
  },
  transfer: {
    frameBytes: size("512KiB", "Pages that travel as one message; 64KiB to 1MiB is sensible"),
    creditWindow: size("16MiB", "Most bytes on their way at any time; about twice bandwidth times round trip"),
    syncRate: count(
      20,
      "per second",
      "Turns in which QEMU sends what was dirtied, and syncs its dirty bitmap, once the first pass is done; each costs the guest a little",
    ),
    zstdWorkers: count(1, "threads", "Threads of a migration that compress; 0 switches compression off"),
  },
  link: {
    ...linkKeys(),
    finalGiveUpAfter: duration(
      "5s",
      "How long the link may be down, since the destination was last heard, while the guest is stopped for the switchover; then it goes on at the source",
    ),
    doubtAfter: duration(
      "10s",
      "How long a destination that was granted the guest may be silent before the migration is shown as in doubt",
    ),
  },
  shutdown: {
    ...shutdownKeys(),
    migrations: text(
      "abort",
      "abort or finish",
      "What becomes of migrations when the agent is stopped: aborted at once, or given shutdown.grace to finish",
    ),
  },
  migration: { downtime: duration("300ms", "Downtime target of a migration that names none") },
  handshake: { timeout: duration("60s", "How long a destination may take to answer; it starts a QEMU for that") },
});

export const destinationSchema = () => ({
  ...commonSchema("destination"),
  guests: {
    ...commonSchema("destination").guests,
    media: list(
      [],
      "paths, comma-separated",
      "Directories from which a source may have media put into removable drives, read-only and of format raw; empty: only media that the guest's definition here names",
    ),
  },
  receiveWindow: size(
    "16MiB",
    "gRPC receive window for pages (grpc-node.flow_control_window); about twice bandwidth times round trip",
  ),
  qemu: {
    startTimeout: duration("30s", "How long a started QEMU may take to answer on its QMP socket"),
    scope: text(
      "auto",
      "auto, on or off",
      "Start each QEMU in a systemd unit of its own, which nothing that is done to the agent's unit reaches; auto: where systemd permits it",
    ),
  },
  link: {
    ...linkKeys(),
    byHand: yesNo(
      "Pull pages by Ferry's own HTTP/2 client, which takes less processor time; grpc-js is used when this is off, and after this client received something from a peer that it does not understand",
    ),
  },
  followUp: duration(
    "30s",
    "An accepted migration whose source does not send its first page for this long, or later says nothing at all over a link that is up, is discarded; the latter after no less than four times link.keepAlive",
  ),
  memory: {
    reserve: size(
      "256MiB",
      "Memory of the host that no incoming guest may take; what accepted guests are still to take is kept beside it",
    ),
  },
});

/** A tree of keys. A node with a `default` is a key. */
export interface SchemaTree {
  readonly [name: string]: SchemaTree | Key<unknown>;
}
