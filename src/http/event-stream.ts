/** The text of event streams (HTML, "Server-sent events"). */
import type { Frame } from "../protocol/frame.ts";

/** Encodes a connection as the events of its stream. */
export interface EventFormat {
  /** The first event. */
  opening(): string;
  /** A frame; empty if the client does not need it. */
  message(frame: Frame): string;
  ping(number: number | undefined): string;
  close(code: number, reason: string): string;
}

/** A message is an event without a name. Text with a line break, which our JSON never has, is sent as a JSON string. */
export function messageEvent(text: string): string {
  return /[\r\n]/.test(text) ? event("text", text) : `data: ${text}\n\n`;
}

/** An event with a name. @param data any JSON */
export function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

/**
 * Headers of an event stream: nginx buffers a response without `X-Accel-Buffering: no`, and Cloudflare and other proxies may
 * compress one without `no-transform`, which buffers it too.
 */
export const STREAM_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store, no-transform",
  "x-accel-buffering": "no",
};
