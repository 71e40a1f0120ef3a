import {
  type Attributes,
  type Context,
  context,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Tracer,
} from "@opentelemetry/api";
import type { Delivering, Observer, Publishing } from "../application/observer.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { guard, isThenable } from "../base/guard.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { errorTypeOf, isFault, isStream } from "./outcome.ts";

/** Version, trace, parent and flags of W3C Trace Context §3.2. A later version may have more fields behind. */
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/;

/** Length of a `traceparent` of version 00. */
const LENGTH = 55;

/** Makes a span for each call of a handler, each publication, and its delivery on each node. */
export class Traces implements Observer {
  readonly #tracer: Tracer;
  readonly #common: Attributes;
  /** Attributes by the name of a span: types and declared channels are bounded. */
  readonly #attributes = new Map<string, Attributes>();
  /** The contexts of handlers that answer in parts, and their spans where they are recorded. */
  readonly #streaming = new WeakMap<WebSocketMessage, { readonly within: Context; readonly span: Span | undefined }>();

  constructor(controller: string, tracer: Tracer) {
    this.#tracer = tracer;
    this.#common = { "noroshi.controller": controller };
  }

  handle(request: WebSocketMessage, { uid }: WebSocketClient, call: () => unknown): unknown {
    const { type, traceparent } = request;
    // Not the active context: a runtime may have kept that of the upgrade request.
    const parent = continued(traceparent) ?? ROOT_CONTEXT;
    const attributes = this.#attributesOf(type, { "rpc.system.name": "noroshi", "rpc.method": type });
    return this.#within(type, SpanKind.SERVER, attributes, parent, (span, settled) => {
      span?.setAttribute("noroshi.client", uid);
      const within = context.active();
      return settled(call(), (result) => {
        if (!isStream(result)) return true;
        this.#streaming.set(request, { within, span });
        return false;
      });
    });
  }

  async stream(request: WebSocketMessage, _client: WebSocketClient, send: () => Promise<unknown>): Promise<unknown> {
    const streaming = this.#streaming.get(request);
    if (!streaming) return await send();
    const { within, span } = streaming;
    try {
      return await context.with(within, send);
    } catch (error) {
      if (span) failed(span, error);
      throw error;
    } finally {
      span?.end();
    }
  }

  bind<Result>(call: () => Result): () => Result {
    return context.bind(context.active(), call);
  }

  publish<Result>(publishing: Publishing, call: () => Result): Result {
    const { channel, declared, parent } = publishing;
    const name = `publish ${declared}`;
    const attributes = { ...this.#messaging(name, declared, "send", "publish"), "messaging.destination.name": channel };
    const from = parent === undefined ? context.active() : continued(parent) ?? ROOT_CONTEXT;
    return this.#within(name, SpanKind.PRODUCER, attributes, from, (span, settled) => {
      // Other nodes do nothing for a trace that is not sampled.
      if (span && isSampled(span.spanContext())) publishing.traceparent = traceparentOf(span.spanContext());
      return settled(call()) as Result; // It settles as the result does.
    }) as Result;
  }

  deliver({ channel, declared, traceparent, subscriptions }: Delivering, call: () => void): void {
    const parent = continued(traceparent);
    if (!parent) return call();
    const name = `deliver ${declared}`;
    const attributes = {
      ...this.#messaging(name, declared, "process", "deliver"),
      "messaging.destination.name": channel,
      "noroshi.subscriptions": subscriptions,
    };
    this.#within(name, SpanKind.CONSUMER, attributes, parent, (_span, settled) => settled(call()));
  }

  /**
   * Calls `run` within a new span, and passes it the span if that is recorded. `settled` ends the span when its argument settles,
   * unless `isEnd` returns false.
   */
  #within(
    name: string,
    kind: SpanKind,
    attributes: Attributes,
    parent: Context,
    run: (span: Span | undefined, settled: (result: unknown, isEnd?: (result: unknown) => boolean) => unknown) => unknown,
  ): unknown {
    const span = this.#tracer.startSpan(name, { kind, attributes }, parent);
    const within = trace.setSpan(parent, span);
    if (!span.isRecording()) return context.with(within, run, undefined, undefined, passed);
    const end = (result: unknown, isEnd: (result: unknown) => boolean) => {
      if (isEnd(result)) span.end();
      return result;
    };
    const fail = (error: unknown) => {
      failed(span, error);
      span.end();
      throw error;
    };
    const settled = (result: unknown, isEnd: (result: unknown) => boolean = () => true) =>
      isThenable(result) ? Promise.resolve(result).then((value) => end(value, isEnd), fail) : end(result, isEnd);
    try {
      return context.with(within, run, undefined, span, settled);
    } catch (error) {
      return fail(error);
    }
  }

  #messaging(name: string, declared: string, type: string, operation: string): Attributes {
    return this.#attributesOf(name, {
      "messaging.system.name": "noroshi",
      "messaging.operation.type": type,
      "messaging.operation.name": operation,
      "messaging.destination.template": declared,
    });
  }

  #attributesOf(name: string, attributes: Attributes): Attributes {
    let known = this.#attributes.get(name);
    if (!known) this.#attributes.set(name, known = { ...this.#common, ...attributes });
    return known;
  }
}

/** What `settled` does without a span: `isEnd` sees the result. */
function passed(result: unknown, isEnd?: (result: unknown) => boolean): unknown {
  const pass = (value: unknown) => (isEnd?.(value), value);
  return isEnd && isThenable(result) ? Promise.resolve(result).then(pass) : pass(result);
}

/** The context that a `traceparent` continues; `undefined` if it is not valid. */
export function continued(traceparent: unknown): Context | undefined {
  if (typeof traceparent !== "string") return undefined;
  const [, version, traceId, spanId, flags] = TRACEPARENT.exec(traceparent) ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (version === "00" && traceparent.length !== LENGTH) return undefined;
  const traceFlags = parseInt(flags, 16) & TraceFlags.SAMPLED; // The other bits of later versions mean nothing here.
  return trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote: true });
}

/** A span may be recorded for a processor of this node alone, without being sampled. */
const isSampled = (of: SpanContext): boolean => isSpanContextValid(of) && (of.traceFlags & TraceFlags.SAMPLED) !== 0;

const traceparentOf = ({ traceId, spanId }: SpanContext): string => `00-${traceId}-${spanId}-01`;

function failed(span: Span, error: unknown): void {
  span.setAttribute("error.type", errorTypeOf(error));
  if (!isFault(error)) return;
  guard(() => {
    span.setStatus({ code: SpanStatusCode.ERROR });
    span.recordException(error instanceof Error ? error : String(error));
  }, () => {}); // A getter of the error threw.
}
