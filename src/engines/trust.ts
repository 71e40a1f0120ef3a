import type { EngineHost } from "../engine.ts";
import type { DropReason, Envelopes, Opened } from "./envelope.ts";
import { Neighbours } from "./neighbours.ts";
import { Orders } from "./orders.ts";
import type { PlacedMember } from "./presence.ts";
import type { Reconnection } from "./reconnection.ts";
import { RollCall } from "./roll-call.ts";

/** What trust needs of its engine. */
export interface TrustHost {
  readonly host: EngineHost;
  readonly link: Reconnection;
  readonly envelopes: Envelopes;
  /** How long a broker may say nothing, in ms. */
  readonly timeout: number;
  /** The members of this node. */
  members(channel: string): PlacedMember[];
  /** Whether this node is subscribed to the channel. */
  follows(channel: string): boolean;
  dropped(reason: DropReason): void;
}

/** How long other nodes are waited for at most, in ms. */
const PATIENCE = 1_000;

/** What nodes that sign have beside signatures: they know each other, so that a copy of what one of them sent is none of it. */
export class Trust {
  readonly orders: Orders;
  readonly rollCall: RollCall;
  readonly #host: TrustHost;
  readonly #neighbours: Neighbours;

  constructor(trust: TrustHost) {
    const { host, link, envelopes, timeout, members, follows, dropped } = trust;
    const { node, deadlines } = host;
    this.#host = trust;
    const neighbours = this.#neighbours = new Neighbours({
      node,
      deadlines,
      guard: envelopes.guard,
      patience: Math.min(PATIENCE, timeout),
      send: (body) => this.#send(body),
      members,
    });
    this.rollCall = new RollCall({ node, neighbours, members, follows, replayed: () => dropped("replayed") });
    this.orders = new Orders({
      host,
      link,
      seal: (body) => envelopes.seal("order", "", body),
      open: (envelope) => envelopes.open(["order"], "", envelope, false),
      malformed: () => dropped("malformed"),
    });
  }

  /** The nodes that are alive state their numbers before this one is ready, so that it takes what they send from then on. */
  async greet(): Promise<void> {
    this.rollCall.forget();
    await this.#neighbours.greet(await this.#host.link.name());
  }

  /** Something came from a node that is not known. */
  meet(node: string): void {
    this.#neighbours.meet(node);
  }

  /** An order, or what another engine says. */
  received(opened: Opened): void {
    if (opened.kind === "order") this.orders.received(opened);
    if (opened.kind === "control" && !this.#neighbours.received(opened.node, opened.body)) this.#host.dropped("malformed");
  }

  #send(body: string): void {
    const { envelopes, host, link } = this.#host;
    const send = (envelope: string) => link.call("send", (session) => session.send(envelope));
    const envelope = envelopes.seal("control", "", body);
    // At once where it can be, so that what is sent next does not overtake it.
    (typeof envelope === "string" ? send(envelope) : envelope.then(send)).catch((error) => {
      // The next session greets anew.
      if (link.status === "ready") host.report(error);
    });
  }
}
