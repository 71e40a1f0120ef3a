/** What the snippets of the pages take for granted: an application's own names, and the globals of a runtime. */
declare const controller: import("noroshi").WebSocketController;
declare const service: import("noroshi").WebSocketService;
declare const channels: import("noroshi/channels").Channels;
declare const client: import("noroshi/client").StreamingClient;
declare const app: import("hono").Hono;
declare const url: string;
declare const token: string;
declare const secret: string;
declare function fetchToken(): Promise<string>;
declare function show(...values: unknown[]): void;
declare function showLogin(): void;
declare function report(error: unknown): void;

/** As `@cloudflare/workers-types` has it, as far as it is used. */
interface DurableObjectNamespace<T = unknown> {
  getByName(name: string): T & { fetch(request: Request): Promise<Response> };
}

/** What an earlier snippet of a page has imported. */
declare const createClient: typeof import("noroshi/client").createClient;
declare const WebSocketController: typeof import("noroshi").WebSocketController;

/** As Vitest has it, as far as it is used. It is installed where its snippet runs. */
declare module "vitest" {
  export function afterEach(hook: () => Promise<void> | void): void;
  export function it(name: string, test: () => Promise<void>): void;
  export const expect:
    & ((value: unknown) => { toContainEqual(item: unknown): void; toMatchSnapshot(): void })
    & { objectContaining(object: object): unknown };
}

/** As pino has it, as far as it is used. Its logger was tried as the option `logger`, and by its own types. */
declare module "pino" {
  export default function pino(): { warn(fields: object, message: string): void; error(fields: object, message: string): void };
}

/** As `@opentelemetry/api-logs` has it, as far as it is used. */
declare module "@opentelemetry/api-logs" {
  export const logs: { getLogger(name: string): { emit(record: object): void } };
}
