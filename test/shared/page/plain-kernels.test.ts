/** Tests the plain page kernels with the suite that all page kernels have to pass. */
import t from "tap";
import { PlainKernels } from "../../../shared/page/plain-kernels.ts";
import { pageKernelsCompliance } from "../../compliance/page-kernels.ts";

pageKernelsCompliance(t, (byteLength) => new PlainKernels(byteLength));
