/** What both halves of bench:path have agreed on, with the agents' default settings. */
import { join } from "node:path";
import type { LinkLimits } from "../../../shared/link/link.ts";
import { loadDestinationConfig } from "../../../shared/runtime/config/config.ts";
import { LIMITS } from "../../support/link.ts";
import { security, TestCa } from "../../support/tls.ts";
import type { Task } from "./messages.ts";

const directories = ["guests", "runtime", "state"].map((name) => `--${name}-directory=/none`);
const DESTINATION = loadDestinationConfig(directories, {});

export const CONTRACT = {
  protocolVersion: 2,
  codecs: ["xbzrle", "zstd"],
  frameBytes: 512 << 10,
  creditWindowBytes: DESTINATION.receiveWindowBytes,
  strategy: "precopy",
  postcopy: false,
  onDeadline: "cancel",
} as const;

/** The folder of the certificates. */
export const certificates = (folder: string): string => join(folder, "tls");

/** @param name the certificate of this half: "alpha" or "beta" */
export const linkLimits = ({ tls, folder }: Task, name: "alpha" | "beta"): LinkLimits => ({
  ...LIMITS,
  receiveWindowBytes: DESTINATION.receiveWindowBytes,
  ...(tls ? { security: security(new TestCa(certificates(folder)).material(name)) } : {}),
});
