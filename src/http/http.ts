/**
 * HTTP beside the socket: the same route, identity and messages for clients that cannot hold a WebSocket.
 *
 * @module
 */
import { fallback, type FallbackOptions } from "./fallback.ts";

export { fallback };
export type { FallbackOptions };
