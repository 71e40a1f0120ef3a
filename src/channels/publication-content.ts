import type { Engine, PublishOnce } from "../engines/engine.ts";
import { jsonOf, MAX_ID_LENGTH, RESERVED_EVENTS } from "../protocol/protocol.ts";

/**
 * Returns the transaction that the application publishes in, if any.
 *
 * @param remedy how to get an engine with transactions.
 * @throws {TypeError} if it is `undefined`, or the engine has no transactions.
 */
export function transactionOf(
  channel: string,
  options: { readonly transaction?: unknown },
  { hasTransactions = false }: Pick<Engine, "hasTransactions">,
  remedy: string,
): unknown {
  const { transaction } = options;
  if (!("transaction" in options)) return undefined;
  // A variable that is not set must not publish outside of the transaction.
  if (transaction === undefined) {
    throw new TypeError(`Cannot publish to "${channel}": transaction is undefined, pass one or leave it out`);
  }
  if (!hasTransactions) throw new TypeError(`Cannot publish to "${channel}" in a transaction: ${remedy}`);
  return transaction;
}

/**
 * Checks what the application publishes, and encodes the data.
 *
 * @param idWindow time in ms that the id is remembered, at least.
 * @throws {TypeError} for an invalid event name or id, or data that JSON cannot represent.
 */
export function publicationOf(
  channel: string,
  event: unknown,
  data: unknown,
  id: string | undefined,
  idWindow: number,
): { readonly data: string; readonly once: PublishOnce | undefined } {
  // A caller without types may pass anything.
  if (typeof event !== "string" || event === "" || event.length > 64 || RESERVED_EVENTS.has(event)) {
    throw new TypeError(
      `Cannot publish to "${channel}": the event must be a string of 1 to 64 characters that the protocol does not reserve`,
    );
  }
  if (id !== undefined && (typeof id !== "string" || id === "" || id.length > MAX_ID_LENGTH)) {
    throw new TypeError(`Cannot publish to "${channel}": the id must be a string of 1 to ${MAX_ID_LENGTH} characters`);
  }
  const json = jsonOf(data);
  if (json === undefined) throw new TypeError(`Cannot publish to "${channel}": pass data that JSON can represent`);
  // Ids of the server and of each user are separate.
  return { data: json, once: id === undefined ? id : { id: JSON.stringify([id]), window: idWindow } };
}
