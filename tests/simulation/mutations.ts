/** A change of the source that brings back a fault which was once real, or its like. */
export interface Mutation {
  /** What is wrong with it. */
  readonly title: string;
  /** A file of `src/`. */
  readonly file: string;
  readonly before: string;
  readonly after: string;
}

/** By name. `npm run simulate -- --mutation <name>` looks for the seed that finds it. */
export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  "gap-unseen": {
    title: "A node delivers what arrives though publications before it were lost on their way",
    file: "engines/broker/gap-detector.ts",
    before: "if (!this.#host.follows(position.offset, previous) || this.#isBehind) return false;",
    after: "",
  },
  "tail-unchecked": {
    title: "A node does not compare the end of the history, so that the loss of the last publication stays unnoticed",
    file: "engines/broker/gap-detector.ts",
    before: "top.offset > position.offset || hasGoneBack",
    after: "hasGoneBack",
  },
  "resume-skipped": {
    title: "A node that has connected again does not read what it missed meanwhile",
    file: "engines/broker/gap-detector.ts",
    before: "return this.#position && !this.#isReading && !this.#stopped ? this.#read() : Promise.resolve();",
    after: "return Promise.resolve();",
  },
  "waiting-lost": {
    title: "A node forgets what arrives while it reads the history",
    file: "engines/broker/gap-detector.ts",
    before:
      "if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ publication, previous });\n      else this.#isBehind = true;",
    after: "",
  },
  "gap-unreported": {
    title: "A node does not report the gap that the history cannot fill",
    file: "engines/broker/gap-detector.ts",
    before: "this.#host.gap(position);",
    after: "",
  },
  "epoch-ignored": {
    title: "A history that has begun anew is taken for the earlier one",
    file: "channels/channel.ts",
    before: "return this.gap();\n    }\n    if (position) this.position = position;",
    after: "}\n    if (position) this.position = position;",
  },
  "feed-hole": {
    title: "A subscription keeps publications after one for which it had no room",
    file: "channels/feed.ts",
    before: "if (!this.hasOverflowed && this.#kept?.push(frame)) return true;",
    after: "if (this.#kept?.push(frame)) return true;",
  },
  "feed-twice": {
    title: "A subscription sends again what it has sent from the history",
    file: "channels/feed.ts",
    before: "if (position && this.at && position.epoch === this.at.epoch && position.offset <= this.at.offset) return true;",
    after: "",
  },
  "page-incomplete": {
    title: "A recovery whose history does not reach back far enough counts as complete",
    file: "channels/subscription.ts",
    before: "if (!recover || !page?.isComplete) return this.#begin(run, recover !== undefined);",
    after: "if (!recover || !page) return this.#begin(run, recover !== undefined);",
  },
  "ghosts": {
    title: "The members of a node that was killed stay",
    file: "engines/broker/presence.ts",
    before: "[...on.keys()].filter((node) => !nodes.has(node)).map((node) => ({ user, node }))",
    after: "[...on.keys()].filter(() => false).map((node) => ({ user, node }))",
  },
  "members-unannounced": {
    title: "A node does not announce its members again when the broker has lost them",
    file: "engines/broker/announcer.ts",
    before: "await Promise.all(batch.map(({ channel, member }) => this.join(channel, member)));",
    after: "",
  },
  "leave-forgotten": {
    title: "A leave that failed because the broker was away is not announced later",
    file: "engines/broker/presence.ts",
    before: "this.#left.set(keyOf(channel, user), leaving);",
    after: "",
  },
  "backup-members": {
    title: "Members that a restored backup lists stay though they have left",
    file: "engines/broker/announcer.ts",
    before: "if (user && !this.own.hasUser(channel, user)) await this.leave(channel, user);",
    after: "",
  },
  "orders-missed": {
    title: "A node that was cut off does not read the orders it missed",
    file: "engines/broker/orders.ts",
    before: "if (opened) this.received(opened, link.now() - opened.time);",
    after: "",
  },
  "order-ageless": {
    title: "A late order also ends connections that were opened after it was given",
    file: "connection/rights.ts",
    before: "return matching.filter(({ identity }) => identity.provedAt <= until);",
    after: "return matching;",
  },
  "sealed-once": {
    title: "Envelopes of one kind that overtook each other are dropped as copies",
    file: "engines/broker/replay-guard.ts",
    before: "if (number <= this.#floor || number <= this.#top - WINDOW || this.#seen.has(number)) return false;",
    after: "if (number <= this.#floor || number <= this.#top) return false;",
  },
};
