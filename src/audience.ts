import type { Frame } from "./frame.ts";
import type { Members } from "./roster.ts";
import type { Publisher, Transport } from "./transport.ts";

/** Somebody who may be sent a frame together with others. */
export interface Member {
  /** Absent, or without a publisher: it is sent to by itself. */
  readonly transport?: Pick<Transport, "publisher" | "join" | "leave"> | undefined;
  /** Bytes that it has been sent and that have not left the process; Infinity while it has to be sent to by itself. */
  readonly heldBytes: number;
}

/** Members that are published to at once: more would keep inbound messages waiting for longer than a slice may. */
const MAX_MEMBERS = 2_000;

let prefix = "";
let topics = 0;

/**
 * A topic belongs to a server, which other copies of the package may share, among them this one as it was before a hot reload.
 * So the name is random, and drawn when it is needed: module scope on Workers forbids it.
 */
function createTopic(): string {
  prefix ||= `noroshi:${crypto.randomUUID()}`;
  return `${prefix}:${++topics}`;
}

/**
 * Members whom one publication reaches, or who have none in common.
 *
 * A publication tells nothing of those who do not read, so it is made only while nobody can hold more than the limit: what everybody was found
 * to hold at the last look, and as if each had been handed all that anybody was handed since.
 */
export class Shard<Each extends Member> {
  readonly publisher: Publisher | undefined;
  readonly members: Members<Each>;
  /** How many have joined so far: where it has not changed, nobody is a member who was none then. */
  joined = 0;
  /** Empty until it is first published to; then its members join it, which takes 300 bytes each. */
  #topic = "";
  #mostHeld = 0;
  /** What was handed over when it was last looked. */
  #lookedAt = 0;

  constructor(publisher: Publisher | undefined, members: Members<Each> = new Set()) {
    this.publisher = publisher;
    this.members = members;
  }

  hasRoomFor({ transport }: Each): boolean {
    return transport?.publisher === this.publisher && (!this.publisher || this.members.size < MAX_MEMBERS);
  }

  add(member: Each): void {
    this.joined++;
    this.members.add(member);
    if (this.#topic === "") return;
    member.transport!.join!(this.#topic);
    this.#mostHeld = Math.max(this.#mostHeld, member.heldBytes);
  }

  delete(member: Each): boolean {
    if (!this.members.delete(member)) return false;
    if (this.#topic !== "") member.transport!.leave!(this.#topic);
    return true;
  }

  /** Sends to all members at once; `false`, and nothing is done, when each has to be sent to by itself. */
  publish(frame: Frame, maxHeldBytes: number): boolean {
    const { publisher } = this;
    if (!publisher) return false;
    if (this.#topic === "") this.#open(publisher);
    if (this.#mostHeld + publisher.handedOver - this.#lookedAt > maxHeldBytes) {
      this.#look(publisher);
      if (this.#mostHeld > maxHeldBytes) return false;
    }
    return publisher.publish(this.#topic, frame);
  }

  #open(publisher: Publisher): void {
    this.#topic = createTopic();
    for (const { transport } of this.members) transport!.join!(this.#topic);
    this.#look(publisher);
  }

  #look({ handedOver }: Publisher): void {
    this.#mostHeld = 0;
    for (const { heldBytes } of this.members) if (heldBytes > this.#mostHeld) this.#mostHeld = heldBytes;
    this.#lookedAt = handedOver;
  }
}

/** All who have something in common, in shards that can be published to. */
export class Audience<Each extends Member> {
  readonly #shards: Shard<Each>[] = [];
  readonly #createMembers: (() => Members<Each>) | undefined;

  /** @param createMembers what the members of a shard are kept in. @default a Set */
  constructor(createMembers?: () => Members<Each>) {
    this.#createMembers = createMembers;
  }

  get shards(): readonly Shard<Each>[] {
    return this.#shards;
  }

  get size(): number {
    let size = 0;
    for (const { members } of this.#shards) size += members.size;
    return size;
  }

  has(member: Each): boolean {
    return this.#shards.some(({ members }) => members.has(member));
  }

  add(member: Each): this {
    let shard = this.#shards.find((shard) => shard.hasRoomFor(member));
    if (!shard) this.#shards.push(shard = new Shard(member.transport?.publisher, this.#createMembers?.()));
    shard.add(member);
    return this;
  }

  delete(member: Each): boolean {
    const place = this.#shards.findIndex((shard) => shard.delete(member));
    if (place < 0) return false;
    if (this.#shards[place]!.members.size === 0) this.#shards.splice(place, 1);
    return true;
  }

  *[Symbol.iterator](): IterableIterator<Each> {
    for (const { members } of this.#shards) yield* members;
  }
}
