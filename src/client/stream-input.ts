import { guard } from "./emitter.ts";
import { bytesOf, encode } from "./encode.ts";
import { ClientError } from "./error.ts";

/** What a client sends after a request, as far as the server has granted it. */
export interface StreamInput {
  /** The server accepts items up to this number, while those before it have fewer bytes. */
  grant(item: number, bytes: number): void;
  /** No more is wanted: ends the iteration. */
  stop(): void;
}

/**
 * @param send resolves once the text is sent
 * @param failed called with why the input cannot be sent, and the number of the message that says so
 * @param report called with what ending the iteration throws
 */
export function createInput(
  input: AsyncIterable<unknown>,
  uid: string,
  send: (text: string) => Promise<void>,
  failed: (error: unknown, item: number) => void,
  report: (error: unknown) => void,
): StreamInput {
  const iterator = input[Symbol.asyncIterator]();
  let [item, bytes, maxItem, maxBytes] = [1, 0, 0, 0];
  let isOver = false;
  let wake: (() => void) | undefined;

  const tell = async (type: string, rest?: object) => {
    const text = encode({ type: `stream.${type}`, uid, item, ...rest });
    await send(text);
    item++;
    bytes += bytesOf(text);
  };

  const stop = () => {
    if (isOver) return;
    isOver = true;
    guard(() => iterator.return?.(), report);
  };

  const run = async () => {
    for (;;) {
      while (item > maxItem || bytes >= maxBytes) await new Promise<void>((resolve) => wake = resolve);
      const { done, value } = await iterator.next();
      if (isOver) return;
      if (done) {
        isOver = true;
        return await tell("end");
      }
      await tell("input", { data: value });
    }
  };

  run().catch((error) => {
    if (isOver) return;
    failed(error, item);
    stop();
    return tell("end", { error: { code: error instanceof ClientError ? error.code : "INTERNAL_ERROR" } });
  });

  return {
    grant(newItem, newBytes) {
      maxItem = newItem;
      maxBytes = newBytes;
      if (!isOver) wake?.();
    },
    stop,
  };
}
