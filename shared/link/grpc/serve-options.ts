/** What an agent's settings say of the server that it opens: where it serves whom, and how many of them. */

import { operatorSocket } from "../../runtime/agent/operator-socket.ts";
import type { CommonConfig } from "../../runtime/config/config.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { LinkLimits } from "../link.ts";
import type { ServeOptions } from "./grpc-server.ts";

/** @throws MigrationFault `configuration` where operators cannot have their socket */
export function serveOptions(config: CommonConfig, limits: LinkLimits, log: Logger): ServeOptions {
  const { listen, operatorStreamsMax, connections } = config;
  const operators = operatorSocket(config);
  return {
    listen,
    ...(operators && { operators }),
    limits,
    operatorStreamsMax,
    connections,
    audit: (line) => log.info(line, "an operator's call"),
  };
}
