/**
 * Makes the options of an agent's server from its settings: at which addresses it serves which callers, and how many.
 */

import { operatorSocket } from "../../runtime/agent/operator-socket.ts";
import type { CommonConfig } from "../../runtime/config/config.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { LinkLimits } from "../link.ts";
import type { ServeOptions } from "./grpc-server.ts";

/** @throws MigrationFault `configuration` when the operators' group cannot be given their socket */
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
