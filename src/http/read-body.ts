import type { Context } from "hono";
import type { Deadlines, Timed } from "../base/clock.ts";

/** The body of a request, or as much of it as was read. */
export interface Body {
  readonly text: string;
  /**
   * `large`: it has more bytes than allowed. `broken`: the client stopped sending it. `late`: it took too long. `refused`: by its
   * start, see {@link BodyStart}.
   */
  readonly end: "whole" | "large" | "broken" | "late" | "refused";
}

/** Decides by the start of a body whether the rest is read. */
export interface BodyStart {
  /** Number of characters that {@link allows} needs. */
  readonly length: number;
  /** Called once with at least that many characters. `false`: nothing more is read. */
  allows(text: string): boolean;
}

/** How long to wait for a body. */
export interface BodyTimeout {
  readonly deadlines: Deadlines;
  /** In ms. */
  readonly timeout: number;
}

/** The body of a request as bytes; empty unless it was read whole. */
export interface Bytes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** See {@link Body.end}. */
  readonly end: Body["end"];
}

/** Requests whose body was read to its end. Only on Bun. */
const whole = "Bun" in globalThis ? new WeakSet<Request>() : undefined;

/**
 * Ends the connection after the answer if the body was not read to its end. Otherwise Bun would receive the rest for as long as the
 * client sends. Hono's Node adapter, also on Deno, ends such a connection by itself, half a second later, so that no answer is lost.
 *
 * @param answer made already. @default the one that the context is about to make
 */
export function endUnread(c: Context, answer?: Response): void {
  if (whole && c.req.raw.body && !whole.has(c.req.raw)) (answer ?? c.res).headers.set("connection", "close");
}

/** Reads the body as text. Stops at the chunk that exceeds `maxBytes`, and when its time is over. */
export function readBody(request: Request, maxBytes: number, limit: BodyTimeout, start?: BodyStart): Promise<Body> {
  const body = start ? readStream(request, maxBytes, start) : read(request, maxBytes);
  return inTime(request, body, { text: "", end: "late" }, limit);
}

/** As {@link readBody}, but returns bytes: decoding to text loses a byte order mark and invalid UTF-8. */
export function readBytes(request: Request, maxBytes: number, limit: BodyTimeout): Promise<Bytes> {
  return inTime(request, gather(request, maxBytes), { bytes: NONE, end: "late" }, limit);
}

const NONE = new Uint8Array();

function inTime<Result extends Pick<Body, "end">>(
  request: Request,
  result: Promise<Result>,
  lateResult: Result,
  { deadlines, timeout }: BodyTimeout,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    // A late body is not cancelled, which would close the connection before the response. See `endUnread`.
    const timer: Timed = { deadline: 0, heapIndex: -1, due: () => resolve(lateResult) };
    deadlines.set(timer, timeout);
    void result.then((read) => {
      deadlines.delete(timer);
      if (read.end === "whole") whole?.add(request);
      resolve(read);
    }, reject);
  });
}

async function gather(request: Request, maxBytes: number): Promise<Bytes> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    const reader = request.body?.getReader();
    for (;;) {
      const { done, value } = await reader?.read() ?? { done: true };
      if (done) break;
      chunks.push(value);
      length += value.byteLength;
      if (length <= maxBytes) continue;
      reader?.cancel().catch(() => {}); // As below.
      return { bytes: NONE, end: "large" };
    }
  } catch {
    return { bytes: NONE, end: "broken" }; // As below.
  }
  return { bytes: joined(chunks, length), end: "whole" };
}

/** Joins chunks of bytes. */
export function joined(chunks: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}

async function read(request: Request, maxBytes: number): Promise<Body> {
  // The server enforces the length, so no stream is needed, which costs Node as much as the rest of a small request.
  const isShort = Number(request.headers.get("content-length") ?? Infinity) <= maxBytes;
  if (!isShort) return await readStream(request, maxBytes);
  try {
    return { text: await request.text(), end: "whole" };
  } catch {
    return { text: "", end: "broken" }; // The client has disconnected, which is no error of the application.
  }
}

async function readStream(request: Request, maxBytes: number, start?: BodyStart): Promise<Body> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  try {
    const reader = request.body?.getReader();
    if (!reader) return { text, end: "whole" };
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { text: text + decoder.decode(), end: "whole" };
      bytes += value.byteLength;
      text += decoder.decode(value, { stream: true });
      if (start && text.length >= start.length) {
        if (!start.allows(text)) return { text, end: "refused" }; // Not cancelled, as a late body.
        start = undefined;
      }
      if (bytes <= maxBytes) continue;
      reader.cancel().catch(() => {}); // Rejects if the client has disconnected.
      return { text, end: "large" };
    }
  } catch {
    return { text, end: "broken" }; // As above.
  }
}
