import { heldBack } from "./behaviours/authentication.ts";
import { conformance } from "./conformance.ts";
import { startServer } from "./server.ts";

conformance("Node", () => startServer("node"), { differences: heldBack });
