import type { Deadlines, Timed } from "../base/clock.ts";

/** The body of a request, or as much of it as was read. */
export interface Body {
  readonly text: string;
  /**
   * `large`: it has more bytes than allowed. `broken`: the client stopped sending it. `late`: it took too long. `refused`: by its start,
   * see {@link BodyStart}.
   */
  readonly end: "whole" | "large" | "broken" | "late" | "refused";
}

/** Decides by the start of a body whether the rest is read. */
export interface BodyStart {
  /** How many characters it needs. */
  readonly length: number;
  /** Called with the text so far, once it is as long. `false`: nothing more is read. */
  allows(text: string): boolean;
}

/** How long to wait for a body. */
export interface Patience {
  readonly deadlines: Deadlines;
  /** In ms. */
  readonly timeout: number;
}

/** The body of a request as bytes, or none of it. */
export interface Bytes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** As of a {@link Body}. */
  readonly end: Body["end"];
}

/** Reads the body as text, at most so many bytes and the chunk beyond them, and until its time is over. */
export function readBody(request: Request, maxBytes: number, patience: Patience, start?: BodyStart): Promise<Body> {
  const body = start ? readStream(request, maxBytes, start) : read(request, maxBytes);
  return inTime(body, { text: "", end: "late" }, patience);
}

/** Reads the body as {@link readBody}, but as its bytes: text has neither a byte order mark nor what is no UTF-8. */
export function readBytes(request: Request, maxBytes: number, patience: Patience): Promise<Bytes> {
  return inTime(gather(request, maxBytes), { bytes: NONE, end: "late" }, patience);
}

const NONE = new Uint8Array();

function inTime<Result>(result: Promise<Result>, lateResult: Result, { deadlines, timeout }: Patience): Promise<Result> {
  return new Promise((resolve, reject) => {
    // What is late is not cancelled: that would cut the connection before the answer. The server ends it after the answer.
    const timer: Timed = { deadline: 0, heapIndex: -1, due: () => resolve(lateResult) };
    deadlines.set(timer, timeout);
    void result.then((read) => {
      deadlines.delete(timer);
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
  // The server holds the client to the length: no stream is needed, which costs Node as much as the rest of a small request.
  const isShort = Number(request.headers.get("content-length") ?? Infinity) <= maxBytes;
  if (!isShort) return await readStream(request, maxBytes);
  try {
    return { text: await request.text(), end: "whole" };
  } catch {
    return { text: "", end: "broken" }; // Nobody reads the answer, and the application has made no mistake.
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
        if (!start.allows(text)) return { text, end: "refused" }; // Not cancelled, as what is late.
        start = undefined;
      }
      if (bytes <= maxBytes) continue;
      reader.cancel().catch(() => {}); // The client has gone, which its next answer shows.
      return { text, end: "large" };
    }
  } catch {
    return { text, end: "broken" }; // As above.
  }
}
