import * as v from "valibot";
import type { Awaitable } from "../engine.ts";
import { FIRST_ISSUE } from "../protocol.ts";
import { then } from "./broker.ts";
import { type SigningKey, signingKey } from "./signature.ts";

/**
 * What an envelope holds: a `publication` to a channel with a history, an `event` to one without, a `member` of a channel, or a `message`
 * to all nodes. What is sent of one kind arrives in the order it was sent.
 */
export type EnvelopeKind = "publication" | "event" | "member" | "message";

/** Why an envelope was dropped. */
export type DropReason = "malformed" | "oversized" | "unsupported" | "forged" | "replayed" | "stale" | "unknown position";

/** An envelope that has been found good. */
export interface Opened {
  /** Who sent it. */
  readonly node: string;
  readonly event: string;
  readonly body: string;
}

export interface EnvelopesOptions {
  readonly node: string;
  /** Keys of HMAC-SHA256: the first signs, each may have signed. None: nothing is signed. */
  readonly secrets: readonly string[];
  /** Characters of an envelope. */
  readonly maxLength: number;
  /** Wall clock, in ms. */
  now(): number;
  /** @param detail what an operator has to know about it. */
  dropped(reason: DropReason, detail?: string): void;
}

/**
 * The version of what is written. Nodes of one and of the next run side by side while an application is upgraded: a version reads what the
 * one before it wrote, and writes what that one can read. Fields that it does not know are nothing to it, and `min` in the header is the
 * first version that can read the envelope, where that is not the one that wrote it. What the one before could not read is written one
 * version after it is read.
 */
const VERSION = 1;

/** How old a signed envelope that arrives may be, and how far clocks may differ, in ms. */
const MAX_AGE = 60_000;

/** Nodes whose numbers are remembered. */
const MAX_NODES = 10_000;

const Header = v.object({
  v: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  min: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(1))),
  kind: v.pipe(v.string(), v.maxLength(32)),
  node: v.pipe(v.string(), v.regex(/^[\w.-]{1,64}$/)),
  number: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  time: v.pipe(v.number(), v.finite()),
  event: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(64)), "-"),
});

/**
 * Writes and reads what nodes send to each other. An envelope is three lines: the signature or nothing, the header as JSON, and the body
 * with all its own lines. Signed are the scope, which is the name of the channel, the header and the body as they stand.
 */
export class Envelopes {
  readonly #options: EnvelopesOptions;
  readonly #keys: readonly SigningKey[];
  readonly #numbers = new Map<EnvelopeKind, number>();
  /** The last number of each kind and node that arrived. */
  readonly #arrived = new Map<string, number>();
  #sealing: Promise<unknown> = Promise.resolve();

  constructor(options: EnvelopesOptions) {
    this.#options = options;
    this.#keys = options.secrets.map((secret) => signingKey(secret));
  }

  /** @param scope the channel, for all that is of one. */
  seal(kind: EnvelopeKind, scope: string, body: string, event?: string): Awaitable<string> {
    const { node, now } = this.#options;
    const number = (this.#numbers.get(kind) ?? 0) + 1;
    this.#numbers.set(kind, number);
    const text = `${JSON.stringify({ v: VERSION, kind, node, number, time: now(), event })}\n${body}`;
    const [key] = this.#keys;
    if (!key) return `\n${text}`;
    const signature = key.sign(`${scope}\n${text}`);
    if (typeof signature === "string") return `${signature}\n${text}`;
    // One after the other: signatures may be ready in another order than they were asked for.
    const sealed = Promise.all([signature, this.#sealing]).then(([signature]) => `${signature}\n${text}`);
    this.#sealing = sealed.catch(() => {});
    return sealed;
  }

  /** `null` for what was dropped. @param arrives now, rather than having been kept: it is neither old nor has it been here before. */
  open(kinds: readonly EnvelopeKind[], scope: string, envelope: string, arrives: boolean): Awaitable<Opened | null> {
    const drop = (reason: DropReason, detail?: string) => {
      this.#options.dropped(reason, detail);
      return null;
    };
    if (envelope.length > this.#options.maxLength) return drop("oversized");
    const signatureEnd = envelope.indexOf("\n");
    const headerEnd = envelope.indexOf("\n", signatureEnd + 1);
    if (signatureEnd < 0 || signatureEnd > 64 || headerEnd < 0 || headerEnd - signatureEnd > 1_024) return drop("malformed");
    const text = envelope.slice(signatureEnd + 1);
    return then(this.#isGenuine(envelope.slice(0, signatureEnd), `${scope}\n${text}`), (isGenuine) => {
      if (!isGenuine) return drop("forged");
      const header = parse(Header, envelope.slice(signatureEnd + 1, headerEnd));
      if (!header) return drop("malformed");
      const kind = kinds.find((kind) => kind === header.kind);
      if ((header.min ?? header.v) > VERSION || !kind) return drop("unsupported");
      const { node, number, time, event } = header;
      // Without signatures anybody can write any number: then it says nothing.
      if (arrives && this.#keys.length > 0) {
        const skew = time - this.#options.now();
        if (Math.abs(skew) > MAX_AGE) return drop("stale", skewText(node, skew));
        if (number <= (this.#arrived.get(`${kind} ${node}`) ?? 0)) return drop("replayed");
        this.#remember(`${kind} ${node}`, number);
      }
      const body = envelope.slice(headerEnd + 1);
      // It is put into the frames of clients as it is.
      if ((kind === "publication" || kind === "event") && !isJson(body)) return drop("malformed");
      return { node, event, body };
    });
  }

  #isGenuine(signature: string, text: string): Awaitable<boolean> {
    if (this.#keys.length === 0) return true;
    if (!/^[0-9a-f]{64}$/.test(signature)) return false;
    const isBy = (number: number): Awaitable<boolean> => {
      const key = this.#keys[number];
      return key ? then(key.verify(signature, text), (isGenuine) => isGenuine || isBy(number + 1)) : false;
    };
    return isBy(0);
  }

  #remember(key: string, number: number): void {
    this.#arrived.delete(key);
    this.#arrived.set(key, number);
    for (const oldest of this.#arrived.keys()) {
      if (this.#arrived.size <= MAX_NODES) break;
      this.#arrived.delete(oldest);
    }
  }
}

/** Nothing that such a node sends is taken, orders to end connections neither: its clock is to be set, or this one's. */
function skewText(node: string, skew: number): string {
  const seconds = Math.round(Math.abs(skew) / 1_000);
  const most = MAX_AGE / 1_000;
  return `the clock of node "${node}" is ${seconds} s ${
    skew > 0 ? "ahead of" : "behind"
  } this one, or it was sent so long ago; ${most} s are allowed`;
}

/** Reads JSON text by a schema; `null` for what is not of it. */
export function parse<Output>(schema: v.GenericSchema<unknown, Output>, text: string): Output | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const result = v.safeParse(schema, value, FIRST_ISSUE);
  return result.success ? result.output : null;
}

export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
