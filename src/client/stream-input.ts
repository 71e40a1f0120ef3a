import { guard } from "./emitter.ts";
import { bytesOf, encode } from "./encode.ts";
import { ClientError } from "./error.ts";

/** The input that a client sends after a request, as fast as the server grants it. */
export interface StreamInput {
  /** The server accepts items up to this number, until the items have this many bytes. */
  grant(item: number, bytes: number): void;
  /** Ends the iteration, because the server needs no more. */
  stop(): void;
}

/**
 * @param send resolves when the text was sent.
 * @param failed called with the error of the input, and the number of the message that ends it.
 * @param report called with what ending the iteration throws.
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

  const sendNext = async (type: string, rest?: object) => {
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
        return await sendNext("end");
      }
      await sendNext("input", { data: value });
    }
  };

  run().catch((error) => {
    if (isOver) return;
    failed(error, item);
    stop();
    return sendNext("end", { error: { code: error instanceof ClientError ? error.code : "INTERNAL_ERROR" } });
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
