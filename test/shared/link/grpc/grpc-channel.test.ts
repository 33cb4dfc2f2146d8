/** Tests a channel over gRPC with the suite that every channel has to pass. */
import t from "tap";
import { channelCompliance } from "../../../compliance/channel.ts";
import { openGrpcPair } from "../../../support/link.ts";

channelCompliance(t, openGrpcPair);
