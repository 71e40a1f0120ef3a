/** A change of the source that brings back a fault which was once real, or its like. */
export interface Mutation {
  /** What is wrong with it. */
  readonly title: string;
  /** A file of `src/`. */
  readonly file: string;
  readonly before: string;
  readonly after: string;
  /** The commit that mended it, where it was real. */
  readonly mendedBy?: string;
  /** The first seed whose 10 hours find it: from 1 on with 3 nodes, 12 clients and those of `library`; from 1,000,001 on with `size`. */
  readonly seed?: number;
  /** Clients of `noroshi/client`, for what is wrong with that. */
  readonly library?: number;
  readonly size?: { readonly nodes: number; readonly clients: number };
}

/** By name. `npm run simulate -- --mutation <name>` looks for the seed that finds it. */
export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  "gap-unseen": {
    title: "A node delivers what arrives though publications before it were lost on their way",
    file: "engines/broker/gap-detector.ts",
    before: "if (!this.#host.follows(position.offset, previous) || this.#isBehind) return false;",
    after: "",
    seed: 1,
  },
  "tail-unchecked": {
    title: "A node does not compare the end of the history, so that the loss of the last publication stays unnoticed",
    file: "engines/broker/gap-detector.ts",
    before: "top.offset > position.offset || hasGoneBack",
    after: "hasGoneBack",
    seed: 5,
  },
  "resume-skipped": {
    title: "A node that has connected again does not read what it missed meanwhile",
    file: "engines/broker/gap-detector.ts",
    before: "if (this.#position && !this.#isReading && !this.#stopped) return this.#read();",
    after: "",
    seed: 2,
  },
  "waiting-lost": {
    title: "A node forgets what arrives while it reads the history",
    file: "engines/broker/gap-detector.ts",
    before:
      "if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ publication, previous });\n      else this.#isBehind = true;",
    after: "",
    seed: 1,
  },
  "gap-unreported": {
    title: "A node does not report the gap that the history cannot fill",
    file: "engines/broker/gap-detector.ts",
    before: "this.#host.gap(position);",
    after: "",
    seed: 2,
  },
  "gap-position": {
    title: "After a gap a channel goes on from the position before it",
    file: "channels/channel.ts",
    before: "gap(position: Position | null = this.position): void {\n    this.position = position;",
    after: "gap(_position: Position | null = this.position): void {",
    mendedBy: "74fdf30",
    seed: 2,
  },
  "unreadable-skipped": {
    title: "A publication that cannot be read is skipped",
    file: "engines/broker/history-reader.ts",
    before: "if (isMissing || entries.length < page.entries.length) {",
    after: "if (isMissing) {",
    mendedBy: "13e1baf",
    seed: 2,
  },
  "read-shared": {
    title: "A client that recovers shares a read that began before a publication which it is not sent either",
    file: "channels/channel.ts",
    before: "must not reuse a page read before this publication: it would miss it.\n    this.#reads.clear();",
    after: "must not reuse",
    mendedBy: "9e8b29c",
  },
  "feed-hole": {
    title: "A subscription keeps publications after one for which it had no room",
    file: "channels/feed.ts",
    before: "if (!this.hasOverflowed && this.#kept?.push(frame)) return true;",
    after: "if (this.#kept?.push(frame)) return true;",
    mendedBy: "3ebeecd",
  },
  "feed-twice": {
    title: "A subscription sends again what it has sent from the history",
    file: "channels/feed.ts",
    before: "if (position && this.at && position.epoch === this.at.epoch && position.offset <= this.at.offset) return true;",
    after: "",
    seed: 1,
  },
  "turn-awaited": {
    title: "A subscription that has to read again waits for the read that it is part of",
    file: "channels/subscription.ts",
    before: "return void this.#resume(false);\n    }\n    this.#live();",
    after: "return await this.#resume(false);\n    }\n    this.#live();",
    mendedBy: "063adcc",
    seed: 1,
  },
  "page-incomplete": {
    title: "A recovery whose history does not reach back far enough counts as complete",
    file: "channels/subscription.ts",
    before: "if (!recover || !page?.isComplete) return this.#begin(run, recover !== undefined);",
    after: "if (!recover || !page) return this.#begin(run, recover !== undefined);",
    seed: 1,
  },
  "ghosts": {
    title: "The members of a node that was killed stay",
    file: "engines/broker/presence.ts",
    before: "[...on.keys()].filter((node) => !nodes.has(node)).map((node) => ({ user, node }))",
    after: "[...on.keys()].filter(() => false).map((node) => ({ user, node }))",
    seed: 1,
  },
  "members-unannounced": {
    title: "A node does not announce its members again when the broker has lost them",
    file: "engines/broker/announcer.ts",
    before: "await this.#settle(batch.map(({ channel, member }) => this.join(channel, member)));",
    after: "",
    seed: 1,
  },
  "announced-stale": {
    title: "A node announces a member that has left while its place was read",
    file: "engines/broker/announcer.ts",
    before: "if (own.has(channel, member)) await this.#send(",
    after: "await this.#send(",
    mendedBy: "d69d91e",
    seed: 7,
  },
  "backup-members": {
    title: "Members that a restored backup lists stay though they have left",
    file: "engines/broker/announcer.ts",
    before: "if (user && !this.own.hasUser(channel, user)) await this.leave(channel, user);",
    after: "",
    mendedBy: "854709b",
    seed: 2,
  },
  "evicted-at-once": {
    title: "Members leave when the broker has evicted the list of nodes",
    file: "engines/broker/reconnection.ts",
    before: "if (!wasKnown || !nodes.includes(this.#options.node)) this.#beats = 0;",
    after: "",
    mendedBy: "226b519",
  },
  "list-once": {
    title: "A client whose list of members could not be read never receives it",
    file: "channels/presence.ts",
    before: "await new Promise<void>((due) => deadlines.set({ deadline: 0, heapIndex: -1, due }, LIST_PERIOD));",
    after: "return;",
    mendedBy: "47905d9",
    seed: 5,
  },
  "data-of-closed": {
    title: "A member keeps the data of a connection that is closed",
    file: "channels/presence.ts",
    before: "if (member.entries.length > 0) this.#join(member);",
    after: "if (member.entries.length > 0) return;",
    mendedBy: "6be498c",
    seed: 1,
  },
  "sealed-once": {
    title: "Envelopes of one kind that overtook each other are dropped as copies",
    file: "engines/broker/replay-guard.ts",
    before: "if (number <= this.#floor || number <= this.#top - WINDOW || this.#seen.has(number)) return false;",
    after: "if (number <= this.#floor || number <= this.#top) return false;",
    mendedBy: "32a6750",
    seed: 8,
  },
  "next-unread": {
    title: "What a node of the next version writes for this one is not read",
    file: "engines/broker/envelope.ts",
    before: "(any.min ?? any.v) > VERSION",
    after: "any.v > VERSION",
    seed: 1,
  },
  "orders-missed": {
    title: "A node that was cut off does not read the orders it missed",
    file: "engines/broker/orders.ts",
    before: "if (opened) this.received(opened, link.now() - opened.time);",
    after: "",
    seed: 3,
  },
  "order-ageless": {
    title: "A late order also ends connections that were opened after it was given",
    file: "connection/rights.ts",
    before: "return matching.filter(({ identity }) => identity.provedAt <= until);",
    after: "return until < 0 ? [] : matching;",
  },
  "rights-restored": {
    title: "An authentication that has begun before the rights were taken restores them",
    file: "connection/rights.ts",
    before: "if (age < revocations.keep) revocations.add(kind, filter, monotonic());",
    after: "void [kind, filter, age, monotonic, revocations];",
    mendedBy: "78fd4bd",
    seed: 7,
  },
  "order-unknown": {
    title: "An order of a node that is not known yet is dropped",
    file: "engines/broker/envelope.ts",
    before: 'if (isNew === null && kind === "order") return { ...opened, mayBeCopy: true };',
    after: "",
    mendedBy: "f20a1f4",
  },
  "order-unsent": {
    title: "An order that is given while the broker is away is not sent later",
    file: "engines/broker/orders.ts",
    before: "this.#waiting.push(order);",
    after: "",
  },
  "order-unheard": {
    title: "A node that is cut off for minutes before it notices reads only the orders of the last one",
    file: "engines/broker/orders.ts",
    before: "this.#slack = SLACK + this.#host.unnoticed;",
    after: "this.#slack = SLACK;",
    mendedBy: "aab53cf",
    seed: 1000096,
    size: { nodes: 2, clients: 4 },
  },
  "unknown-unread": {
    title: "A publication of a node that is not known yet is found by the next check only",
    file: "engines/broker/trust.ts",
    before: "this.#host.link.lookSoon();",
    after: "",
    mendedBy: "0f534fc",
    seed: 1000121,
    size: { nodes: 2, clients: 4 },
  },
  "client-unmoved": {
    title: "A client recovers from where it began, and not from the last publication it has received",
    file: "client/subscriptions.ts",
    before: "if (position) position = { ...position, ...place };",
    after: "",
    seed: 1,
    library: 4,
  },
  "client-doubled": {
    title: "A client takes what it has received already",
    file: "client/subscriptions.ts",
    before: "if (position && place && place.offset <= position.offset) return;",
    after: "",
    library: 4,
  },
  "client-gap-hidden": {
    title: "A client does not report that it could not recover",
    file: "client/subscriptions.ts",
    before: "if (recovered === true && position) return;",
    after: "if (position) return;",
    seed: 1,
    library: 4,
  },
  "client-gap-invented": {
    title: "A client starts anew though it has recovered",
    file: "client/subscriptions.ts",
    before: "if (recovered === true && position) return;",
    after: "",
    seed: 1,
    library: 4,
  },
  "client-not-subscribed": {
    title: "A client that is back does not subscribe again",
    file: "client/subscriptions.ts",
    before: "for (const entry of all()) entry.isLive = undefined;",
    after: "",
    seed: 1,
    library: 4,
  },
  "client-refused-once": {
    title: "A client does not ask again after a subscription was refused for a moment",
    file: "client/subscriptions.ts",
    before: "if (!entry.isLive) ask();\n        }, retryAfter",
    after: "}, retryAfter",
    seed: 1,
    library: 4,
  },
};
