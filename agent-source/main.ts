#!/usr/bin/env -S MALLOC_ARENA_MAX=2 node --single-threaded-gc --max-semi-space-size=2 --no-flush-bytecode --retain-maps-for-n-gc=1000000 --no-memory-reducer
// what the options of the first line are for: docs/design/memory-and-v8.md#the-options
/** The program ferry-source: reads the configuration, makes the parts, and joins them to a service. It has no logic. */
import "../shared/runtime/v8/supported-node.ts";
import "../shared/runtime/v8/closed-inspector.ts";
import { Gate } from "../shared/link/grpc/gate.ts";
import { serveSource } from "../shared/link/grpc/grpc-server.ts";
import { serveOptions } from "../shared/link/grpc/serve-options.ts";
import type { SourceService } from "../shared/link/link.ts";
import { openSecurity } from "../shared/link/tls/security.ts";
import { decodeSourceRecord } from "../shared/protocol/record-decoding.ts";
import { listeningText, type RunningAgent, runAgent } from "../shared/runtime/agent/run-agent.ts";
import { systemClock } from "../shared/runtime/clock.ts";
import { askedFor, loadSourceConfig } from "../shared/runtime/config/config.ts";
import { lockDirectories } from "../shared/runtime/files/agent-lock.ts";
import { checkOpenFiles } from "../shared/runtime/host/open-files.ts";
import { Journal } from "../shared/runtime/journal/journal.ts";
import { loadKernels } from "../shared/runtime/load-kernels.ts";
import { createLogger } from "../shared/runtime/log/log.ts";
import { TestFaults } from "../shared/runtime/test-faults.ts";
import { WarmUpRunner } from "../shared/runtime/v8/warm-up-runner.ts";
import { AllowedDestinations } from "./service/allowed-destinations.ts";
import { keepMemory } from "./service/keep-memory.ts";
import { SourceAgent } from "./service/source-agent.ts";
import { warmUp } from "./warmup/warm-up.ts";

async function start(): Promise<RunningAgent> {
  const config = loadSourceConfig(process.argv.slice(2), process.env);
  const log = createLogger("ferry-source", config.logLevel);
  if (config.faults.length > 0) log.warn({ faults: config.faults }, "FAULTS ARE SWITCHED ON: for tests only");
  const { sockets } = new AllowedDestinations(config.destinationsAllowed);
  const limits = {
    receiveWindowBytes: config.transfer.creditWindowBytes,
    messageBytes: 8 << 20,
    keepAliveMs: config.link.keepAliveMs,
    security: openSecurity(config, log, sockets),
  };
  await checkOpenFiles(config);
  // the directories are locked and the addresses bound first, so that a second agent changes nothing before it finds
  // the first one
  await lockDirectories({ role: "source", ...config }, log);
  const gate = new Gate<SourceService>();
  const options = serveOptions(config, limits, log);
  const listener = await serveSource(gate, options);
  const journal = await Journal.open(config.stateDirectory, decodeSourceRecord);
  const faults = new TestFaults(config.faults);
  const rehearsal = new WarmUpRunner();
  const agent = new SourceAgent({
    config,
    clock: systemClock,
    log,
    journal,
    limits,
    createKernels: loadKernels,
    keptMemory: keepMemory(config.memory.keep, systemClock, log),
    faults,
    onBusy: () => void rehearsal.end(),
  });
  agent.advertised = listener.address;
  await agent.recover();
  gate.open(agent);
  if (config.rehearsal)
    rehearsal.begin(log, (signal) =>
      warmUp({ config, clock: systemClock, log, limits, createKernels: loadKernels }, signal),
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
await runAgent(askedFor("source", argv), start);
