import { conformance } from "./conformance.ts";
import { startServer } from "./server.ts";

conformance("Node", () => startServer("node"));
