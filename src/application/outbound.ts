import type { Contract } from "../protocol/contract-types.ts";
import { guard, isThenable } from "../base/guard.ts";
import type { Frame } from "../protocol/frame.ts";
import { issuePath, type WebSocketMessage } from "../protocol/protocol.ts";
import { type CheckedSchema, checkSchema, parse, type Parsed, some } from "./schema.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** Reports messages of the server that do not fit the contract. No method throws, and each message is sent all the same. */
export interface OutboundChecks {
  /** The result of a handler. */
  reply(type: string, data: unknown, client: WebSocketClient): void;
  /** An item of a stream. */
  item(type: string, data: unknown, client: WebSocketClient): void;
  /** A message that is no answer: broadcast, or sent to one client. A string of the application is not checked. */
  message(frame: Frame, client?: WebSocketClient): void;
  /** A question to one client, or to many. */
  question(type: string, payload: unknown, client?: WebSocketClient): void;
  /** @param declared the name that the channel is declared by. @param json the data. */
  publication(declared: string, channel: string, event: string, json: string): void;
  /** The snapshot of a subscription, with or without a `query`. @param declared as in {@link publication}. */
  snapshot(declared: string, channel: string, data: unknown, client: WebSocketClient): void;
  /** The data of the client's member. @param declared, json as in {@link publication}. */
  member(declared: string, channel: string, json: string, client: WebSocketClient): void;
}

/** Values of `status` in answers. */
const ANSWERED: ReadonlySet<unknown> = new Set(["ok", "error", "next", "open"]);

/** Whether a client treats the message as an error, with any `uid` or none. */
const isError = ({ status, error }: Record<string, unknown>): boolean => status === "error" && error !== undefined;

type Report = (error: unknown, client?: WebSocketClient) => void;

/**
 * Creates the checks of a contract. `defineContract` fills the map, so that an application without a contract does not load them.
 */
export const outboundChecks: WeakMap<object, (report: Report) => OutboundChecks> = new WeakMap();

/** The checks of a contract. They read the data as the client does: as JSON. */
export class Outbound implements OutboundChecks {
  readonly #contract: Contract;
  readonly #report: Report;
  readonly #schemas = new Map<unknown, CheckedSchema | null>();

  constructor(contract: Contract, report: Report) {
    this.#contract = contract;
    this.#report = report;
  }

  reply(type: string, data: unknown, client: WebSocketClient): void {
    this.#check(`The reply to "${type}"`, own(this.#contract.requests, type)?.reply, () => asJson(data), client);
  }

  item(type: string, data: unknown, client: WebSocketClient): void {
    const { stream } = own(this.#contract.requests, type) ?? {};
    this.#check(`An item of "${type}"`, stream?.output, () => asJson(data), client);
  }

  message({ isJson, text }: Frame, client?: WebSocketClient): void {
    const { messages, requests } = this.#contract;
    if (!messages || !isJson) return;
    const { type, uid, ...payload } = JSON.parse(text) as WebSocketMessage; // `Frame.of` has checked the type.
    if (type === "subscription" || type === "presence") return;
    // An answer has one of these statuses. So may a declared message without a `uid`, unless a request has its type.
    const mayBeAnswer = uid !== undefined || own(messages, type) === undefined || own(requests, type) !== undefined;
    if (mayBeAnswer ? ANSWERED.has(payload["status"]) : isError(payload)) return;
    const what = `The message "${type}"`;
    if (own(messages, type) === undefined) this.#reportFault(what, "is not in the contract", client);
    else this.#check(what, messages[type], () => payload, client);
  }

  question(type: string, payload: unknown, client?: WebSocketClient): void {
    const { questions } = this.#contract;
    if (!questions) return;
    const [what, declared] = [`The question "${type}"`, own(questions, type)];
    if (declared === undefined) this.#reportFault(what, "is not in the contract", client);
    else this.#check(what, declared.payload, () => asJson(payload), client);
  }

  publication(declared: string, channel: string, event: string, json: string): void {
    const events = own(this.#contract.channels, declared)?.events;
    if (!events) return;
    const what = `The publication "${event}" to "${channel}"`;
    const schema = own(events, event);
    if (schema === undefined) return this.#reportFault(what, "is not in the contract");
    // A publication is the output of the schema, and a schema that transforms may refuse its own output.
    if (!mayTransform(schema)) this.#check(what, schema, () => JSON.parse(json));
  }

  snapshot(declared: string, channel: string, data: unknown, client: WebSocketClient): void {
    this.#check(`The snapshot of "${channel}"`, own(this.#contract.channels, declared)?.snapshot, () => asJson(data), client);
  }

  member(declared: string, channel: string, json: string, client: WebSocketClient): void {
    this.#check(`The member in "${channel}"`, own(this.#contract.channels, declared)?.member, () => JSON.parse(json), client);
  }

  #check(what: string, schema: unknown, read: () => unknown, client?: WebSocketClient): void {
    let checked = this.#schemas.get(schema);
    if (checked === undefined) this.#schemas.set(schema, checked = checkSchema(schema));
    if (!checked) return;
    const settle = (parsed: Parsed): void => {
      if (parsed.success) return;
      const path = issuePath(parsed.issues[0]!); // A failure has an issue.
      this.#reportFault(what, `does not fit the contract${path === "" ? "" : ` at "${path}"`}`, client);
    };
    guard(() => {
      const parsed = parse(checked, read());
      return isThenable(parsed) ? parsed.then(settle) : settle(parsed);
    }, (error) => this.#report(error, client));
  }

  #reportFault(what: string, fault: string, client?: WebSocketClient): void {
    this.#report(new TypeError(`${what} ${fault}, and was sent all the same`), client);
  }
}

/** An own field of a declaration, so that `constructor` is none. */
function own<Value>(of: { readonly [name: string]: Value } | undefined, name: string): Value | undefined {
  return of && Object.hasOwn(of, name) ? of[name] : undefined;
}

const asJson = (data: unknown): unknown => data === undefined ? undefined : JSON.parse(JSON.stringify(data));

/** Whether the output of a schema may differ in type from its input, as far as valibot, Zod and ArkType tell. */
function mayTransform(schema: unknown): boolean {
  return typeof schema === "function"
    ? "includesTransform" in schema && schema.includesTransform === true
    : some(schema, isTransformation);
}

function isTransformation(part: object): boolean {
  const { kind, type, operation, transform } = part as Record<string, unknown>; // Read as unknown.
  if (kind !== "transformation") return type === "transform" || typeof transform === "function"; // Of Zod.
  return operation !== undefined || typeof type === "string" && /^(raw|to_(?!lower|upper|m[ai])|parse|stringify)/.test(type);
}
