#!/usr/bin/env node
/** The program `ferry`: it wires the command line to this process and to gRPC, and has no logic of its own. */
import "../shared/runtime/v8/supported-node.ts";
import { GrpcOperatorClient } from "../shared/link/grpc/operator-client.ts";
import { operatorSecurity } from "../shared/link/tls/security.ts";
import { systemClock } from "../shared/runtime/clock.ts";
import { readCertificates } from "../shared/runtime/files/certificates.ts";
import { EXIT } from "./exit-codes.ts";
import { runFerry } from "./program.ts";
import { processTerminal } from "./terminal.ts";

const TLS_OPTIONS = { ca: "--tls-ca", certificate: "--tls-certificate", key: "--tls-key" };

// the reader of a pipe may close it early: `ferry list | head -1`
process.stdout.on("error", () => process.exit(EXIT.failed));

process.exitCode = await runFerry(process.argv.slice(2), {
  terminal: processTerminal(),
  env: process.env,
  connect: (address, timeoutMs, tls) =>
    new GrpcOperatorClient(address, timeoutMs, tls && operatorSecurity(readCertificates(tls, TLS_OPTIONS))),
  onInterrupt: (handler) => {
    process.on("SIGINT", handler);
    return () => process.off("SIGINT", handler);
  },
  // a sleep that the signal cuts short is no error
  sleep: (ms, signal) => systemClock.sleep(ms, signal).catch(() => undefined),
});
