import type { WebSocketMessage } from "../protocol/protocol.ts";
import { NextPromise, type UnhandledFailure } from "./next-promise.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** The argument of a middleware. */
export interface MiddlewareContext {
  /** The client that sent the message. */
  readonly client: WebSocketClient;
  /** The message as received, or as the previous middleware passed it to `next`. */
  readonly message: WebSocketMessage;
}

/**
 * Runs around every inbound message except `auth`, `ping` and `pong`. Call `next()` to pass the message on, or `next(other)` to
 * pass on another one; without the call the message is not handled. `next` resolves when the handler is done and rejects with
 * the error of a later middleware.
 *
 * Return or await its promise. An unhandled rejection of it, or of its `then`, `catch` and `finally`, is answered and reported as
 * if the middleware had thrown. Any other promise, of an async function that is not awaited or of `Promise.all`, is not covered:
 * its rejection ends a Node or Deno process.
 */
export type Middleware = (context: MiddlewareContext, next: (message?: WebSocketMessage) => Promise<void>) => unknown;

/** What follows the middleware of one message. */
export interface AfterMiddleware {
  /** Handles the message, which a middleware may have replaced. The promise, if any, resolves when it is answered. */
  handle(message: WebSocketMessage): Promise<void> | undefined;
  /** Answers an error of the middleware. */
  fail(error: unknown): void;
}

/** The middleware of a controller, in the order of addition. */
export class MiddlewareChain {
  readonly #middleware: Middleware[] = [];

  get isEmpty(): boolean {
    return this.#middleware.length === 0;
  }

  add(middleware: Middleware): void {
    if (typeof middleware !== "function") throw new TypeError("Cannot use the middleware: it must be a function");
    this.#middleware.push(middleware);
  }

  /** Passes a message through the middleware. Settles when the middleware and the handler are done. */
  async run(client: WebSocketClient, message: WebSocketMessage, after: AfterMiddleware, index = 0): Promise<void> {
    if (index > 0) {
      // While the previous middleware awaited, the client may have disconnected, or its credentials may have expired.
      const connection = connectionOf(client);
      while (connection.revalidating) await connection.revalidating;
      if (connection.isSuspended) return connection.refuseMessage(message.uid);
    }
    const middleware = this.#middleware[index];
    if (!middleware) return after.handle(message);
    let rest: NextPromise | undefined;
    let done = false;
    const unhandled: UnhandledFailure[] = [];
    const onUnhandled = (failure: UnhandledFailure) => {
      // Until the middleware is done it may still handle the rejection.
      if (!done) unhandled.push(failure);
      else if (!failure.promise.observed) after.fail(failure.error);
    };
    try {
      await middleware({ client, message }, (replacement = message) => {
        if (rest) throw new Error("Cannot call next() twice in one middleware");
        if (typeof replacement?.type !== "string") {
          throw new TypeError("Cannot pass the message on: it must be an object with a type");
        }
        return rest = NextPromise.of(this.run(client, replacement, after, index + 1), onUnhandled);
      });
    } finally {
      done = true;
      unhandled.forEach(onUnhandled);
    }
    // A middleware that ignored the promise of next() must not hide its error.
    if (rest && !rest.observed) await rest;
  }
}
