import { headers } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { encodeName } from "../../src/engines/broker/channel-name.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { sequenceOf } from "../../src/engines/nats/offset.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { faults, NOWHERE } from "./faults.ts";

faults("nats", {
  skip: lacks("nats-server"),
  start: () => BrokerProcess.nats(),
  engine(port, keeps, options) {
    return natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { storage: keeps ? "file" : "memory" }, ...options });
  },
  async inject(port, texts) {
    const connection = await connect({ servers: `127.0.0.1:${port}` });
    const info = (await connection.request("$JS.API.STREAM.INFO.NOROSHI_noroshi")).json<{ config: { subjects: string[] } }>();
    for (const { to, channel, text, position: { epoch, offset } = NOWHERE } of texts) {
      const subject = to === "all" ? "noroshi.noroshi.nodes" : `noroshi.noroshi.channel.${encodeName(channel)}.${to}`;
      const placed = headers();
      const history = epoch === NOWHERE.epoch ? `noroshi.noroshi.history.${epoch}.*` : info.config.subjects[0]!;
      placed.set("Nats-Subject", history.replace("*", encodeName(channel)));
      placed.set("Nats-Sequence", `${sequenceOf(offset)}`);
      placed.set("Nats-Last-Sequence", `${sequenceOf(offset) - 1}`);
      connection.publish(subject, text, to === "publication" ? { headers: placed } : {});
    }
    await connection.flush();
    await connection.close();
  },
});
