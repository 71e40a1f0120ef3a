import type { EngineHost } from "../engine.ts";
import type { DropReason, Envelopes, Opened } from "./envelope.ts";
import { Neighbours } from "./neighbours.ts";
import { Orders } from "./orders.ts";
import type { RankedMember } from "./presence.ts";
import type { Reconnection } from "./reconnection.ts";
import { MemberVerifier } from "./member-verifier.ts";

/** What {@link Trust} needs from its engine. */
export interface TrustHost {
  readonly host: EngineHost;
  readonly link: Reconnection;
  readonly envelopes: Envelopes;
  /** Three times the interval of the heartbeats, in ms. */
  readonly lease: number;
  /** Interval of the checks, in ms. */
  readonly checkInterval: number;
  /** Silence after which the broker counts as unavailable, in ms. */
  readonly timeout: number;
  /** The members of a channel on this node. */
  members(channel: string): RankedMember[];
  /** Whether this node is subscribed to the channel. */
  follows(channel: string): boolean;
  dropped(reason: DropReason): void;
}

/** Protects nodes that sign against replayed envelopes, whose signatures are valid, by asking other nodes for their numbers and members. */
export class Trust {
  readonly orders: Orders;
  readonly verifier: MemberVerifier;
  readonly #host: TrustHost;
  readonly #neighbours: Neighbours;

  constructor(trust: TrustHost) {
    const { host, link, envelopes, lease, checkInterval, timeout, members, follows, dropped } = trust;
    const { node, deadlines } = host;
    this.#host = trust;
    const neighbours = this.#neighbours = new Neighbours({
      node,
      deadlines,
      guard: envelopes.guard,
      timeout,
      send: (body) => this.#send(body),
      members,
    });
    this.verifier = new MemberVerifier({ node, neighbours, members, follows, replayed: () => dropped("replayed") });
    this.orders = new Orders({
      host,
      link,
      // The next heartbeat or check notices a silent broker within three timeouts.
      maxDetectionTime: lease + checkInterval + 3 * timeout,
      seal: (body) => envelopes.seal("order", "", body),
      open: (envelope) => envelopes.open(["order"], "", envelope, false),
      malformed: () => dropped("malformed"),
    });
  }

  /** Asks the live nodes for their numbers. Runs before this node is ready, because it drops envelopes of unknown nodes. */
  async greet(): Promise<void> {
    this.verifier.forget();
    await this.#neighbours.greet(await this.#host.link.listNodes());
  }

  /** Called when an envelope of an unknown node was dropped. It may have been a publication, which the extra check finds. */
  greetUnknown(node: string): void {
    this.#neighbours.greetUnknown(node);
    this.#host.link.checkSoon();
  }

  /** Handles an order or a control message. */
  received(opened: Opened): void {
    const { kind, node, time, mayBeCopy } = opened;
    if (mayBeCopy) this.greetUnknown(node);
    if (kind === "order") this.orders.received(opened, mayBeCopy ? this.#host.link.now() - time : undefined);
    if (kind === "control" && !this.#neighbours.received(node, opened.body)) this.#host.dropped("malformed");
  }

  #send(body: string): void {
    const { envelopes, host, link } = this.#host;
    const send = (envelope: string) => link.call("send", (session) => session.send(envelope));
    const envelope = envelopes.seal("control", "", body);
    // Synchronous when the signature is, so that control messages keep their order.
    (typeof envelope === "string" ? send(envelope) : envelope.then(send)).catch((error) => {
      // Without a session nothing is reported, because the next one greets again.
      if (link.status === "ready") host.report(error);
    });
  }
}
