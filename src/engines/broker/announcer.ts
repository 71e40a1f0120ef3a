import type { Member } from "../engine.ts";
import { inBatches } from "./broker.ts";
import type { Envelopes } from "./envelope.ts";
import { type NodeMember, OwnMembers, parseMember, presenceSetOf, type RankedMember, toWire } from "./presence.ts";
import type { Reconnection } from "./reconnection.ts";
import type { MemberVerifier, StoredMember } from "./member-verifier.ts";
import type { NodeSubscription } from "./node-subscription.ts";

/** What {@link Announcer} needs from its engine. */
export interface AnnouncerHost {
  /** The connection, or a promise while the first connect is under way. */
  link(action: string): Reconnection | Promise<Reconnection>;
  envelopes(): Envelopes;
  /** Absent unless nodes sign their envelopes. */
  verifier(): MemberVerifier | undefined;
  subscription(channel: string): NodeSubscription | undefined;
  malformed(): void;
  report(error: unknown): void;
}

/** Maximum number of announcements that await an answer. */
const MAX_UNDER_WAY = 200;

/** Announces the members of this node to the broker, and reads the members of all nodes. */
export class Announcer {
  readonly own: OwnMembers = new OwnMembers();
  readonly #host: AnnouncerHost;
  #isIncomplete = false;

  constructor(host: AnnouncerHost) {
    this.#host = host;
  }

  /** Whether the broker refused some of the last announcements. */
  get isIncomplete(): boolean {
    return this.#isIncomplete;
  }

  /** Reads the members of a channel on all nodes. If nodes sign, members that their node does not confirm are left out. */
  async read(channel: string): Promise<NodeMember[]> {
    const link = await this.#host.link("list the members");
    const stored: StoredMember[] = [];
    const { node } = this.#host.envelopes();
    for (const envelope of await link.call("list the members", (session) => session.members(channel))) {
      const opened = await this.#host.envelopes().open(["member"], channel, envelope, false);
      const parsed = opened && parseMember(opened.body);
      if (parsed && !parsed.left) stored.push({ node: opened.node, number: opened.number, ...parsed.member });
      else if (opened) this.#host.malformed();
    }
    await this.#host.link("list the members"); // The session may have ended while they were opened.
    this.#correct(channel, stored.filter((member) => member.node === node));
    const verifier = this.#host.verifier();
    return verifier ? await verifier.confirm(channel, stored) : stored;
  }

  /** Announces a member. Its rank depends on the current members, which are read for the first join unless the channel is subscribed. */
  async join(channel: string, member: Member): Promise<void> {
    const { own } = this;
    if (own.needsRank(member)) {
      const from = this.#host.subscription(channel) ?? presenceSetOf(await this.read(channel));
      own.ranked(member, await from.nextRank(member.user));
    }
    // During the read, the user may have left or changed the data.
    if (own.has(channel, member)) await this.#send("join", channel, member.user, JSON.stringify(toWire(own.ranked(member))));
  }

  async leave(channel: string, user: string): Promise<void> {
    const pending = this.own.pendingLeave(channel, user);
    await this.#send("leave", channel, user, JSON.stringify({ user, left: true }));
    if (pending) this.own.confirmLeave(pending);
  }

  /** Announces all pending leaves and all members, each as it is when it is sent. Reports if the broker refuses one. */
  async announce(): Promise<void> {
    const { own } = this;
    this.#isIncomplete = false;
    for (const batch of inBatches(own.pendingLeaves, MAX_UNDER_WAY)) {
      const gone = batch.filter((leave) => own.pendingLeave(leave.channel, leave.user) === leave);
      await this.#settle(gone.map(({ channel, user }) => this.leave(channel, user)));
    }
    for (const batch of inBatches(own.all, MAX_UNDER_WAY)) {
      await this.#settle(batch.map(({ channel, member }) => this.join(channel, member)));
    }
  }

  /** Removes stored members of this node that have left, as a broker that was restored from a backup may list them again. */
  async removeStale(): Promise<void> {
    const link = await this.#host.link("compare");
    for (const { channel, envelope } of await link.call("compare", (session) => session.ownMembers())) {
      const opened = await this.#host.envelopes().open(["member"], channel, envelope, false);
      const user = opened && parseMember(opened.body)?.member.user;
      if (user && !this.own.hasUser(channel, user)) await this.leave(channel, user);
    }
  }

  /** Announces that all members leave. */
  async retire(): Promise<void> {
    for (const { channel, member } of this.own.all) this.own.leave(channel, member.user);
    await this.announce();
  }

  /**
   * Announces members again that the broker has stored differently, because it may handle a request of an earlier session after those of a
   * later one.
   *
   * @param stored the members of this node, as the broker has them.
   */
  #correct(channel: string, stored: readonly RankedMember[]): void {
    const { own } = this;
    const storedByUser = new Map(stored.map((member) => [member.user, member]));
    const wrong = own.of(channel).filter((member) => {
      if (own.needsRank(member)) return false; // Its announcement is under way.
      const { data, rank } = own.ranked(member);
      const found = storedByUser.get(member.user);
      return !found || found.data !== data || found.rank !== rank;
    });
    const gone = stored.filter(({ user }) => !own.hasUser(channel, user) && !own.pendingLeave(channel, user));
    if (wrong.length + gone.length === 0) return;
    const corrections = [
      ...wrong.map((member) => this.join(channel, member)),
      ...gone.map(({ user }) => this.leave(channel, user)),
    ];
    this.#settle(corrections).catch((error) => this.#host.report(error));
  }

  /** Waits for announcements, and reports if one is refused. @throws if the session has ended. */
  async #settle(announcements: readonly Promise<void>[]): Promise<void> {
    const refused = (await Promise.allSettled(announcements)).find(({ status }) => status === "rejected");
    if (refused?.status !== "rejected") return;
    await this.#host.link("announce");
    if (!this.#isIncomplete) this.#host.report(refused.reason);
    this.#isIncomplete = true;
  }

  async #send(action: "join" | "leave", channel: string, user: string, body: string): Promise<void> {
    const linked = this.#host.link(action);
    // No `await` if the connection is ready, so that announcements are sent in the order of the calls.
    const link = linked instanceof Promise ? await linked : linked;
    const envelope = await this.#host.envelopes().seal("member", channel, body);
    await link.call(action, (session) => session[action](channel, user, envelope, this.own.isEmpty(channel)));
  }
}
