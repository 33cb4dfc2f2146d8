/** Tests the plain page kernels with the suite that all page kernels have to pass. */
import t from "tap";
import { pageKernelsCompliance } from "../compliance/page-kernels.ts";
import { PlainKernels } from "./plain-kernels.ts";

pageKernelsCompliance(t, (byteLength) => new PlainKernels(byteLength));
