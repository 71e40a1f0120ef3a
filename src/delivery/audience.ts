import type { Frame } from "../protocol/frame.ts";
import type { Publisher, Transport } from "./transport.ts";

/** A client that frames are sent to, together with others if the runtime can do that. */
export interface Recipient {
  /** If it is absent or has no publisher, frames are sent to the client separately. */
  readonly transport?: Pick<Transport, "publisher" | "join" | "leave"> | undefined;
  /** Bytes sent that have not left the process; `Infinity` while frames have to be sent to the client separately. */
  readonly heldBytes: number;
}

/** Maximum number of members of a group. Publishing to more at once would delay inbound messages for longer than a slice may take. */
const MAX_MEMBERS = 2_000;

let prefix = "";
let topics = 0;

/**
 * Creates a name for a topic. The prefix is random, because other copies of the package may use the same server, as after a hot reload. It
 * is drawn at the first call, because Workers forbid randomness in module scope.
 */
function createTopic(): string {
  prefix ||= `noroshi:${crypto.randomUUID()}`;
  return `${prefix}:${++topics}`;
}

/**
 * Up to 2,000 recipients that share a topic of one server, or recipients without a topic.
 *
 * Publishing does not show which sockets are slow. So a frame is published only while no member can have buffered more than the limit: the
 * maximum when the members were last measured, plus all bytes sent to any socket since.
 */
export class TopicGroup<Member extends Recipient> {
  readonly publisher: Publisher | undefined;
  readonly members: Set<Member> = new Set();
  /** Number of members that have joined so far. */
  joined = 0;
  /** Empty until the first publication, because a subscription to the topic takes 300 bytes. */
  #topic = "";
  /** Maximum `heldBytes` of a member when the members were measured, or when it joined later. */
  #mostHeld = 0;
  /** The publisher's `bytesSent` when the members were measured. */
  #measuredAt = 0;

  constructor(publisher: Publisher | undefined) {
    this.publisher = publisher;
  }

  hasRoomFor({ transport }: Member): boolean {
    return transport?.publisher === this.publisher && (!this.publisher || this.members.size < MAX_MEMBERS);
  }

  add(member: Member): void {
    this.joined++;
    this.members.add(member);
    if (this.#topic === "") return;
    member.transport!.join!(this.#topic);
    this.#mostHeld = Math.max(this.#mostHeld, member.heldBytes);
  }

  delete(member: Member): boolean {
    if (!this.members.delete(member)) return false;
    if (this.#topic !== "") member.transport!.leave!(this.#topic);
    return true;
  }

  /** Sends to all members at once. Returns `false` if nothing was sent, and the frame has to be sent to each member separately. */
  publish(frame: Frame, maxHeldBytes: number): boolean {
    const { publisher } = this;
    if (!publisher) return false;
    if (this.#topic === "") this.#createTopic(publisher);
    if (this.#mostHeld + publisher.bytesSent - this.#measuredAt > maxHeldBytes) {
      this.#measure(publisher);
      if (this.#mostHeld > maxHeldBytes) return false;
    }
    return publisher.publish(this.#topic, frame);
  }

  #createTopic(publisher: Publisher): void {
    this.#topic = createTopic();
    for (const { transport } of this.members) transport!.join!(this.#topic);
    this.#measure(publisher);
  }

  #measure({ bytesSent }: Publisher): void {
    this.#mostHeld = 0;
    for (const { heldBytes } of this.members) if (heldBytes > this.#mostHeld) this.#mostHeld = heldBytes;
    this.#measuredAt = bytesSent;
  }
}

/** The recipients of a channel, user or role, in groups that can be published to. */
export class Audience<Member extends Recipient> {
  readonly #groups: TopicGroup<Member>[] = [];

  get groups(): readonly TopicGroup<Member>[] {
    return this.#groups;
  }

  get size(): number {
    let size = 0;
    for (const { members } of this.#groups) size += members.size;
    return size;
  }

  has(member: Member): boolean {
    return this.#groups.some(({ members }) => members.has(member));
  }

  add(member: Member): this {
    let group = this.#groups.find((group) => group.hasRoomFor(member));
    if (!group) this.#groups.push(group = new TopicGroup(member.transport?.publisher));
    group.add(member);
    return this;
  }

  delete(member: Member): boolean {
    const index = this.#groups.findIndex((group) => group.delete(member));
    if (index < 0) return false;
    if (this.#groups[index]!.members.size === 0) this.#groups.splice(index, 1);
    return true;
  }

  *[Symbol.iterator](): IterableIterator<Member> {
    for (const { members } of this.#groups) yield* members;
  }
}
