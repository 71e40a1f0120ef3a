import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Server } from "socket.io";
import { adapter, answer } from "./socket-io-app.ts";

const server = createServer();
answer(new Server(server, await adapter()));
server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
