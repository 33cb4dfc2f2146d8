#!/usr/bin/env -S MALLOC_ARENA_MAX=2 node --single-threaded-gc --max-semi-space-size=2 --no-flush-bytecode --retain-maps-for-n-gc=1000000 --no-memory-reducer
// what the options of the first line are for: docs/design/memory-and-v8.md#the-options
/**
 * The program ferry-destination. It reads the configuration, makes the agent and its parts, and serves it. How a
 * migration goes is not decided here.
 */
import "../shared/runtime/v8/supported-node.ts";
import "../shared/runtime/v8/closed-inspector.ts";
import { Gate } from "../shared/link/grpc/gate.ts";
import { serveDestination } from "../shared/link/grpc/grpc-server.ts";
import { serveOptions } from "../shared/link/grpc/serve-options.ts";
import type { DestinationService, MigrationOperator } from "../shared/link/link.ts";
import { openSecurity } from "../shared/link/tls/security.ts";
import { decodeDestinationRecord } from "../shared/protocol/record-decoding.ts";
import { listeningText, type RunningAgent, runAgent } from "../shared/runtime/agent/run-agent.ts";
import { systemClock } from "../shared/runtime/clock.ts";
import { askedFor, loadDestinationConfig } from "../shared/runtime/config/config.ts";
import { lockDirectories } from "../shared/runtime/files/agent-lock.ts";
import { checkOpenFiles } from "../shared/runtime/host/open-files.ts";
import { Journal } from "../shared/runtime/journal/journal.ts";
import { loadKernels } from "../shared/runtime/load-kernels.ts";
import { createLogger } from "../shared/runtime/log/log.ts";
import { TestFaults } from "../shared/runtime/test-faults.ts";
import { WarmUpRunner } from "../shared/runtime/v8/warm-up-runner.ts";
import { GuestUnits } from "./guest/guest-units.ts";
import { DestinationAgent } from "./service/destination-agent.ts";
import { warmUp } from "./warmup/warm-up.ts";

async function start(): Promise<RunningAgent> {
  const config = loadDestinationConfig(process.argv.slice(2), process.env);
  const log = createLogger("ferry-destination", config.logLevel);
  if (config.faults.length > 0) log.warn({ faults: config.faults }, "FAULTS ARE SWITCHED ON: for tests only");
  const limits = {
    receiveWindowBytes: config.receiveWindowBytes,
    messageBytes: 8 << 20,
    keepAliveMs: config.link.keepAliveMs,
    security: openSecurity(config, log),
    byHand: config.link.byHand,
  };
  await checkOpenFiles(config);
  // the directories are locked and the addresses bound before the journal is read, so that a second agent finds the
  // first one before it changes anything
  await lockDirectories({ role: "destination", ...config }, log);
  const gate = new Gate<DestinationService>();
  const desk = new Gate<MigrationOperator>();
  const options = serveOptions(config, limits, log);
  const listener = await serveDestination(gate, options, desk);
  const journal = await Journal.open(config.stateDirectory, decodeDestinationRecord);
  GuestUnits.current = new GuestUnits({ mode: config.qemuScope, log });
  const faults = new TestFaults(config.faults);
  const rehearsal = new WarmUpRunner();
  const agent = new DestinationAgent({
    config,
    clock: systemClock,
    log,
    journal,
    limits,
    createKernels: loadKernels,
    faults,
    onBusy: () => void rehearsal.end(),
  });
  await agent.recover();
  gate.open(agent);
  desk.open(agent.desk);
  if (config.rehearsal)
    rehearsal.begin(log, (signal) =>
      warmUp({ config, clock: systemClock, limits, createKernels: loadKernels }, signal),
    );
  return {
    log,
    status: listeningText(listener.address, options.operators?.path),
    graceMs: config.shutdownGraceMs,
    stop: async () => {
      await rehearsal.end();
      await agent.stop();
      await listener.close(1000);
    },
  };
}

const argv = process.argv.slice(2);
await runAgent(askedFor("destination", argv), start);
