/** The body of a request, or as much of it as was read. */
export interface Body {
  readonly text: string;
  /** `large`: it has more bytes than allowed. `broken`: the client stopped sending it. */
  readonly end: "whole" | "large" | "broken";
}

/** Reads the body as text, at most so many bytes and the chunk beyond them. */
export async function readBody(request: Request, maxBytes: number): Promise<Body> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  const reader = request.body?.getReader();
  if (!reader) return { text, end: "whole" };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { text: text + decoder.decode(), end: "whole" };
      bytes += value.byteLength;
      text += decoder.decode(value, { stream: true });
      if (bytes > maxBytes) break;
    }
  } catch {
    return { text, end: "broken" }; // Nobody reads the answer, and the application has made no mistake.
  }
  reader.cancel().catch(() => {}); // The client has gone, which its next answer shows.
  return { text, end: "large" };
}
