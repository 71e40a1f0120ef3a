import { Connections } from "../connection/connections.ts";
import type { Listening, ServableApp } from "./listening.ts";
import { websocket } from "../runtimes/bun.ts";
import { HOST, type Host } from "../runtimes/runtime.ts";

/** The part of Bun's server that this file uses. */
interface BunServer {
  readonly port: number;
  /** Includes silent responses and unfinished request bodies. */
  readonly pendingRequests: number;
  readonly pendingWebSockets: number;
  closeIdleConnections(): void;
  /** Sets the idle timeout of the request's connection, in seconds. */
  timeout(request: Request, seconds: number): void;
  reload(options: BunServeOptions): void;
  stop(closeActive: boolean): Promise<void>;
}

interface BunServeOptions {
  port: number;
  hostname: string;
  websocket: typeof websocket & { readonly maxPayloadLength: number };
  fetch(request: Request, server: BunServer): Response | Promise<Response>;
}

/** Bun's maximum idle timeout, in seconds. */
const MAX_IDLE_TIME = 255;

/** Default `maxPayload` of a controller, in bytes. */
const MAX_PAYLOAD = 65_536;

/** How often open requests are counted while the server stops, in ms: Bun emits no event when the last one ends. */
const DRAIN_PERIOD = 20;

/** Methods that read the body of a request. */
const READS = ["arrayBuffer", "blob", "bytes", "formData", "json", "text"] as const;

/**
 * Creates a prototype for requests. It keeps a request in `receiving` while the app reads its body, because Bun does not report that.
 * Copies of a request are not known to it.
 */
function trackBodies(receiving: Set<Request>): object {
  const during = async <Value>(request: Request, read: () => Promise<Value>): Promise<Value> => {
    receiving.add(request);
    try {
      return await read();
    } finally {
      receiving.delete(request);
    }
  };
  const reads = READS.map((name) => [name, {
    configurable: true,
    writable: true,
    value(this: Request): Promise<unknown> {
      return during(this, () => Request.prototype[name].call(this));
    },
  }]);
  const bodyOf = Object.getOwnPropertyDescriptor(Request.prototype, "body")!.get!; // As the standard has it.
  const bodies = new WeakMap<Request, ReadableStream<Uint8Array>>();
  return Object.create(Request.prototype, {
    ...Object.fromEntries(reads),
    body: {
      configurable: true,
      get(this: Request): ReadableStream<Uint8Array> | null {
        const known = bodies.get(this);
        const body: ReadableStream<Uint8Array> | null = known ?? bodyOf.call(this);
        if (known || !body || this.bodyUsed) return body;
        const counted = countedBody(body, (read) => during(this, read));
        bodies.set(this, counted);
        return counted;
      },
    },
  });
}

/** The stream, with each read passed to `during`. It locks the stream when it is first read: until then `text()` works, too. */
function countedBody(
  body: ReadableStream<Uint8Array>,
  during: <Value>(read: () => Promise<Value>) => Promise<Value>,
): ReadableStream<Uint8Array> {
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await during(() => (reader ??= body.getReader()).read());
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => (reader ?? body).cancel(reason),
  }, { highWaterMark: 0 });
}

/** Serves with `Bun.serve`. */
export function listenBun(app: ServableApp, port: number, hostname: string): Promise<Listening> {
  // `listener` has checked that it exists.
  const { Bun } = globalThis as unknown as { Bun: { serve(options: BunServeOptions): BunServer } };
  const connections = new Connections();
  let maxPayloadLength = MAX_PAYLOAD;
  let isDraining = false;
  const receiving = new Set<Request>();
  const tracked = trackBodies(receiving);
  // Raised on demand: Bun has one limit for all sockets of a server, and buffers that much of an unfinished message for each.
  const allowPayload = (bytes: number) => {
    if (bytes <= maxPayloadLength || isDraining) return;
    maxPayloadLength = bytes;
    server.reload(options());
  };
  const host: Host = { connections, allowPayload };
  const finish = (response: Response) => {
    // Bun ends the connection anyway, but does not send this header.
    if (isDraining) response.headers.set("connection", "close");
    return response;
  };
  const options = (): BunServeOptions => ({
    port,
    hostname,
    websocket: { ...websocket, maxPayloadLength },
    fetch(request, server) {
      // Bun ends a silent connection after 10 s by default. A response may stay silent for longer.
      server.timeout(request, MAX_IDLE_TIME);
      if (request.method !== "GET") Object.setPrototypeOf(request, tracked);
      // hono/bun reads `server` too.
      const response = app.fetch(request, { server, request, [HOST]: host });
      return response instanceof Promise ? response.then(finish) : finish(response);
    },
  });
  const server = Bun.serve(options());
  return Promise.resolve({
    port: server.port,
    connections,
    drain() {
      isDraining = true;
      server.closeIdleConnections();
    },
    async stop(bodyTimeout) {
      isDraining = true;
      const end = performance.now() + bodyTimeout;
      let isStopped = false;
      const stopped = server.stop(false).then(() => isStopped = true);
      // `stop(false)` also waits for connections that have sent half a request; `pendingRequests` does not count those.
      const expected = () => performance.now() < end ? 0 : receiving.size;
      while (!isStopped && server.pendingRequests + server.pendingWebSockets > expected()) {
        await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, DRAIN_PERIOD))]);
      }
      await server.stop(true);
    },
    kill: () => void server.stop(true),
  });
}
