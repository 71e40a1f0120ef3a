/** The body of a request, or as much of it as may be read. */
export interface Body {
  readonly text: string;
  readonly isWhole: boolean;
}

/** Reads the body as text, at most so many bytes and the chunk beyond them. */
export async function readBody(request: Request, maxBytes: number): Promise<Body> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  const reader = request.body?.getReader();
  if (!reader) return { text, isWhole: true };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { text: text + decoder.decode(), isWhole: true };
    bytes += value.byteLength;
    text += decoder.decode(value, { stream: true });
    if (bytes <= maxBytes) continue;
    reader.cancel().catch(() => {}); // The client has gone, which its next answer shows.
    return { text, isWhole: false };
  }
}
