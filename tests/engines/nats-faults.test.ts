import { headers } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { encodeName } from "../../src/engines/channel-name.ts";
import { natsEngine } from "../../src/engines/nats.ts";
import { BrokerProcess, lacks } from "./brokers.ts";
import { faults, NOWHERE } from "./faults.ts";

faults("nats", {
  skip: lacks("nats-server"),
  start: () => BrokerProcess.nats(),
  engine(port, keeps, options) {
    return natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { storage: keeps ? "file" : "memory" }, ...options });
  },
  async inject(port, texts) {
    const connection = await connect({ servers: `127.0.0.1:${port}` });
    for (const { to, channel, text, position: { epoch, offset } = NOWHERE } of texts) {
      const subject = to === "all" ? "noroshi.noroshi.nodes" : `noroshi.noroshi.channel.${encodeName(channel)}.${to}`;
      const placed = headers();
      placed.set("Nats-Subject", `noroshi.noroshi.history.${epoch}.${encodeName(channel)}`);
      placed.set("Nats-Sequence", `${offset}`);
      placed.set("Nats-Last-Sequence", `${offset - 1}`);
      connection.publish(subject, text, to === "publication" ? { headers: placed } : {});
    }
    await connection.flush();
    await connection.close();
  },
});
