import * as v from "valibot";
import type { Awaitable } from "../engine.ts";
import { FIRST_ISSUE } from "../protocol.ts";
import { then } from "./broker.ts";
import { ENVELOPE_KINDS, type EnvelopeKind } from "./envelope-kind.ts";
import { ReplayGuard } from "./replay-guard.ts";
import { type SigningKey, signingKey } from "./signature.ts";

/** Why an envelope was dropped. */
export type DropReason =
  | "malformed"
  | "oversized"
  | "unsupported"
  | "forged"
  | "replayed"
  | "stale"
  | "unknown node"
  | "unknown position";

/** An envelope that has been found good. */
export interface Opened {
  readonly kind: EnvelopeKind;
  /** The node that sent it. */
  readonly node: string;
  /** Grows with each envelope of its kind that the node sends. */
  readonly number: number;
  /** When it was sealed, in ms of the broker's clock. */
  readonly time: number;
  readonly event: string;
  readonly body: string;
}

export interface EnvelopesOptions {
  readonly node: string;
  /** Keys of HMAC-SHA256: the first signs, each may have signed. None: nothing is signed. */
  readonly secrets: readonly string[];
  /** Characters of an envelope. */
  readonly maxLength: number;
  /** Names what the nodes have in common, such as the namespace. @default nothing */
  place?(): string;
  /** The broker's clock, in ms. */
  now(): number;
  /** @param node that it says it is of, and has signed it. */
  dropped(reason: DropReason, node?: string): void;
}

/**
 * The version of what is written. Nodes of one and of the next run side by side while an application is upgraded: a version reads what the
 * one before it wrote, and writes what that one can read. Fields that it does not know are nothing to it, and `min` in the header is the
 * first version that can read the envelope, where that is not the one that wrote it. What the one before could not read is written one
 * version after it is read.
 */
const VERSION = 2;

/** The first version that this one reads: what version 1 signed was of any place. */
const FIRST_VERSION = 2;

/** Characters of what precedes the body. */
const MAX_HEADER = 1_024;

const nowhere = () => "";

const Version = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
/** What headers of all versions have. */
const AnyHeader = v.object({ v: Version, min: v.optional(Version), kind: v.pipe(v.string(), v.maxLength(32)) });
const Header = v.object({
  v: Version,
  min: v.optional(Version),
  in: v.string(),
  kind: v.picklist(ENVELOPE_KINDS),
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
  /** Where nobody signs, anybody can write any number: then it is not asked. */
  readonly guard: ReplayGuard;
  readonly #options: EnvelopesOptions;
  readonly #keys: readonly SigningKey[];
  #sealing: Promise<unknown> = Promise.resolve();

  constructor(options: EnvelopesOptions) {
    this.#options = options;
    this.#keys = options.secrets.map((secret) => signingKey(secret));
    this.guard = new ReplayGuard(options.node);
  }

  /** @param scope the channel, for all that is of one. */
  seal(kind: EnvelopeKind, scope: string, body: string, event?: string): Awaitable<string> {
    const { node, now, place = nowhere } = this.#options;
    const number = this.guard.next(kind);
    const time = Math.floor(now());
    const text = `${JSON.stringify({ v: VERSION, in: place(), kind, node, number, time, event })}\n${body}`;
    const [key] = this.#keys;
    if (!key) return `\n${text}`;
    const signature = key.sign(`${scope}\n${text}`);
    if (typeof signature === "string") return `${signature}\n${text}`;
    // One after the other: signatures may be ready in another order than they were asked for.
    const sealed = Promise.all([signature, this.#sealing]).then(([signature]) => `${signature}\n${text}`);
    this.#sealing = sealed.catch(() => {});
    return sealed;
  }

  /** `null` for what was dropped. @param arrives now, rather than having been kept: then its number has not been here before. */
  open(kinds: readonly EnvelopeKind[], scope: string, envelope: string, arrives: boolean): Awaitable<Opened | null> {
    const { dropped, maxLength, place = nowhere } = this.#options;
    const drop = (reason: DropReason, node?: string) => {
      dropped(reason, node);
      return null;
    };
    if (envelope.length > maxLength) return drop("oversized");
    const signatureEnd = envelope.indexOf("\n");
    const headerEnd = envelope.indexOf("\n", signatureEnd + 1);
    if (signatureEnd < 0 || signatureEnd > 64 || headerEnd < 0 || headerEnd - signatureEnd > MAX_HEADER) return drop("malformed");
    const text = envelope.slice(signatureEnd + 1);
    return then(this.#isGenuine(envelope.slice(0, signatureEnd), `${scope}\n${text}`), (isGenuine) => {
      if (!isGenuine) return drop("forged");
      const json = envelope.slice(signatureEnd + 1, headerEnd);
      const header = parse(Header, json);
      const any = header ?? parse(AnyHeader, json);
      if (!any) return drop("malformed");
      if ((any.min ?? any.v) > VERSION || any.v < FIRST_VERSION || !kinds.some((kind) => kind === any.kind)) {
        return drop("unsupported");
      }
      if (!header) return drop("malformed");
      const { kind, node, number } = header;
      if (header.in !== place()) return drop("forged");
      const body = envelope.slice(headerEnd + 1);
      // It is put into the frames of clients as it is.
      if ((kind === "publication" || kind === "event") && !isJson(body)) return drop("malformed");
      if (arrives && this.#keys.length > 0) {
        const isNew = this.guard.take(kind, node, number);
        if (!isNew) return drop(isNew === null ? "unknown node" : "replayed", node);
      }
      return { kind, node, number, time: header.time, event: header.event, body };
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
