import t from "tap";
import { channelCompliance } from "../../../compliance/channel.ts";
import { openGrpcPair } from "../../../support/link.ts";

channelCompliance(t, openGrpcPair);
