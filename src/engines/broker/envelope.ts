import * as v from "valibot";
import type { Awaitable, PublicationContent } from "../engine.ts";
import { FIRST_ISSUE } from "../../protocol/protocol.ts";
import { chain } from "./broker.ts";
import { ENVELOPE_KINDS, type EnvelopeKind } from "./envelope-kind.ts";
import { ReplayGuard } from "./replay-guard.ts";
import { type SigningKey, signingKey } from "./signature.ts";
import { SingleUseNodes } from "./single-use-nodes.ts";

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

/** An envelope that passed all checks. */
export interface Opened {
  readonly kind: EnvelopeKind;
  /** The node that sent it. */
  readonly node: string;
  /** Increases with each envelope of this kind that the node sends. */
  readonly number: number;
  /** Time of sealing, in ms of the broker's clock. */
  readonly time: number;
  readonly event: string;
  readonly body: string;
  /** Trace context of the publication. */
  readonly traceparent?: string;
  /** Set for an order that arrived live from a node whose numbers are unknown, so that it may be a replayed copy. */
  readonly mayBeCopy?: true;
}

export interface EnvelopesOptions {
  readonly node: string;
  /** Keys of HMAC-SHA256: the first one signs, all of them verify. If empty, nothing is signed. */
  readonly secrets: readonly string[];
  /** Maximum length of an envelope, in characters. */
  readonly maxLength: number;
  /** Identifies the application at the broker; signatures cover it. @default {""} */
  fullNamespace?(): string;
  /** The broker's clock, in ms. */
  now(): number;
  /**
   * Called when an envelope was dropped.
   *
   * @param node the sender, if the signature is valid.
   * @param channel set if the envelope announces a member of the channel and its node is unknown.
   */
  dropped(reason: DropReason, node?: string, channel?: string): void;
}

/**
 * Version of the format. During an upgrade, nodes of two consecutive versions run side by side. So each version reads the previous format,
 * ignores unknown fields, and writes nothing that the previous version cannot read. `min` in the header is the first version that can
 * read the envelope, if it is not `v`.
 */
const VERSION = 2;

/** The oldest version that is read. Version 1 did not sign the namespace, so that its envelopes would be valid in any application. */
const FIRST_VERSION = 2;

/** Maximum length of the header, in characters. */
const MAX_HEADER = 1_024;

const noNamespace = () => "";

const Version = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
/** The fields that headers of every version have. */
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
  traceparent: v.fallback(v.optional(v.pipe(v.string(), v.maxLength(64))), undefined),
});

/**
 * Writes and reads the envelopes that nodes exchange. The first line is the signature, or empty; the second is the header as JSON; the
 * rest is the body. The signature covers the scope (the name of the channel), the header and the body.
 */
export class Envelopes {
  /** Used only if nodes sign: without signatures, anybody can write any number. */
  readonly guard: ReplayGuard;
  readonly #options: EnvelopesOptions;
  readonly #keys: readonly SigningKey[];
  #sealing: Promise<unknown> = Promise.resolve();

  constructor(options: EnvelopesOptions) {
    this.#options = options;
    this.#keys = options.secrets.map((secret) => signingKey(secret));
    this.guard = new ReplayGuard(options.node);
  }

  /** The name of this node. */
  get node(): string {
    return this.#options.node;
  }

  /** Makes an envelope. @param scope the channel, or `""`. */
  seal(kind: EnvelopeKind, scope: string, body: string, event?: string, traceparent?: string): Awaitable<string> {
    return this.#seal(kind, scope, body, this.#options.node, this.guard.next(kind), event, traceparent);
  }

  /**
   * Makes an envelope that may arrive after later ones of this node, because a transaction publishes it at its commit. It has a node name
   * of its own: see {@link SingleUseNodes}.
   */
  sealSingle(kind: EnvelopeKind, scope: string, body: string, event?: string, traceparent?: string): Awaitable<string> {
    return this.#seal(kind, scope, body, SingleUseNodes.name(), 1, event, traceparent);
  }

  #seal(
    kind: EnvelopeKind,
    scope: string,
    body: string,
    node: string,
    number: number,
    event?: string,
    traceparent?: string,
  ): Awaitable<string> {
    const { now, fullNamespace = noNamespace } = this.#options;
    const time = Math.floor(now());
    const text = `${JSON.stringify({ v: VERSION, in: fullNamespace(), kind, node, number, time, event, traceparent })}\n${body}`;
    const [key] = this.#keys;
    if (!key) return `\n${text}`;
    const signature = key.sign(`${scope}\n${text}`);
    if (typeof signature === "string") return `${signature}\n${text}`;
    // Chained, because WebCrypto may finish signatures out of order, and envelopes must be sent in the order of their numbers.
    const sealed = Promise.all([signature, this.#sealing]).then(([signature]) => `${signature}\n${text}`);
    this.#sealing = sealed.catch(() => {});
    return sealed;
  }

  /**
   * Checks and reads an envelope. Returns `null` if it was dropped.
   *
   * @param arrives whether it arrived live, so that its number must be new. `false` for a stored one.
   */
  open(kinds: readonly EnvelopeKind[], scope: string, envelope: string, arrives: boolean): Awaitable<Opened | null> {
    const { dropped, maxLength, fullNamespace = noNamespace } = this.#options;
    const drop = (...dropping: Parameters<typeof dropped>) => {
      dropped(...dropping);
      return null;
    };
    if (envelope.length > maxLength) return drop("oversized");
    const signatureEnd = envelope.indexOf("\n");
    const headerEnd = envelope.indexOf("\n", signatureEnd + 1);
    if (signatureEnd < 0 || signatureEnd > 64 || headerEnd < 0 || headerEnd - signatureEnd > MAX_HEADER) return drop("malformed");
    const text = envelope.slice(signatureEnd + 1);
    return chain(this.#isGenuine(envelope.slice(0, signatureEnd), `${scope}\n${text}`), (isGenuine) => {
      if (!isGenuine) return drop("forged");
      const json = envelope.slice(signatureEnd + 1, headerEnd);
      const header = parse(Header, json);
      const any = header ?? parse(AnyHeader, json);
      if (!any) return drop("malformed");
      if ((any.min ?? any.v) > VERSION || any.v < FIRST_VERSION || !kinds.some((kind) => kind === any.kind)) {
        return drop("unsupported");
      }
      if (!header) return drop("malformed");
      const { kind, node, number, traceparent } = header;
      if (header.in !== fullNamespace()) return drop("forged");
      const body = envelope.slice(headerEnd + 1);
      // The body is put into frames of clients as it is.
      if ((kind === "publication" || kind === "event") && !isJson(body)) return drop("malformed");
      const isNew = arrives && this.#keys.length > 0 ? this.#isNew(header) : true;
      const opened = {
        kind,
        node,
        number,
        time: header.time,
        event: header.event,
        body,
        ...(traceparent !== undefined && { traceparent }),
      };
      if (isNew) return opened;
      // Orders in the store are read only after a reconnect, so this one must be accepted now. A copy does no harm, because an order affects
      // only connections that are older than its time.
      if (isNew === null && kind === "order") return { ...opened, mayBeCopy: true };
      return isNew === null ? drop("unknown node", node, kind === "member" ? scope : undefined) : drop("replayed", node);
    });
  }

  #isNew({ kind, node, number, time }: Pick<Opened, "kind" | "node" | "number" | "time">): boolean | null {
    if (!SingleUseNodes.has(node)) return this.guard.accept(kind, node, number);
    return this.guard.singleUse.judge(node, time, this.#options.now()) === "genuine";
  }

  #isGenuine(signature: string, text: string): Awaitable<boolean> {
    if (this.#keys.length === 0) return true;
    if (!/^[0-9a-f]{64}$/.test(signature)) return false;
    const isBy = (number: number): Awaitable<boolean> => {
      const key = this.#keys[number];
      return key ? chain(key.verify(signature, text), (isGenuine) => isGenuine || isBy(number + 1)) : false;
    };
    return isBy(0);
  }
}

/** The content of an envelope that holds a publication. */
export const contentOf = ({ event, body: data, traceparent }: Opened): PublicationContent =>
  traceparent === undefined ? { event, data } : { event, data, traceparent };

/** Parses JSON text with a schema. Returns `null` if it does not match. */
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

/** Whether the text is valid JSON. */
export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
