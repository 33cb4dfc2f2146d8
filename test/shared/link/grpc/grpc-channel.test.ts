/** Tests a channel by grpc-js, at both ends, with the suite that every channel has to pass. */
import t from "tap";
import { channelCompliance } from "../../../compliance/channel.ts";
import { openGrpcPair } from "../../../support/link.ts";

channelCompliance(t, (t) => openGrpcPair(t, { byHand: false }));
