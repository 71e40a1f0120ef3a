import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import crossws from "crossws/adapters/node";
import { hooks, sync } from "./crossws-hooks.ts";

const adapter = crossws({ hooks, ...await sync() });
const server = createServer();
server.on("upgrade", adapter.handleUpgrade);
server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
