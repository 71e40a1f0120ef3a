import type { Awaitable } from "../engine.ts";
import { type BrokerListener, chain, Sequence } from "./broker.ts";
import { contentOf, type Opened } from "./envelope.ts";
import type { EnvelopeKind } from "./envelope-kind.ts";
import type { MemberVerifier } from "./member-verifier.ts";
import type { NodeSubscription } from "./node-subscription.ts";
import { parseMember } from "./presence.ts";

/** What {@link inboundListener} needs from its engine. */
export interface InboundHost {
  /** Opens an envelope that has arrived live. Returns `null` if it was dropped. */
  open(kinds: readonly EnvelopeKind[], scope: string, envelope: string): Awaitable<Opened | null>;
  subscription(channel: string): NodeSubscription | undefined;
  /** Absent unless nodes sign their envelopes. */
  verifier(): MemberVerifier | undefined;
  /** Receives a message, an order or a control message. */
  receive(opened: Opened): void;
  malformed(): void;
  report(error: unknown): void;
}

/** Opens envelopes in the order in which they arrive, and passes their content to the subscriptions. */
export function inboundListener(host: InboundHost): Omit<BrokerListener, "ended"> {
  const { open, subscription, malformed } = host;
  const inbound = new Sequence((error) => host.report(error));
  return {
    live: (channel, envelope, position, previous) => {
      if (!subscription(channel)) return;
      inbound.run(() =>
        chain(open([position ? "publication" : "event"], channel, envelope), (opened) => {
          if (opened) subscription(channel)?.receive({ ...contentOf(opened), position }, previous);
        })
      );
    },
    // In sequence, because the signatures of publications before the mark may not be verified yet.
    mark: (channel, position, previous) => inbound.run(() => subscription(channel)?.advance(position, previous)),
    message: (envelope) =>
      inbound.run(() =>
        chain(open(["message", "order", "control"], "", envelope), (opened) => opened ? host.receive(opened) : undefined)
      ),
    member: (channel, envelope) => {
      if (!subscription(channel)) return;
      inbound.run(() =>
        chain(open(["member"], channel, envelope), (opened) => {
          const parsed = opened && parseMember(opened.body);
          if (opened && !parsed) malformed();
          if (!parsed) return;
          const { member, left } = parsed;
          host.verifier()?.changed(channel, { ...opened, user: member.user }, left);
          subscription(channel)?.changed(opened.node, member, left);
        })
      );
    },
    malformed,
  };
}
