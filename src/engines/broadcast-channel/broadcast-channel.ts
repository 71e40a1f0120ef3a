/**
 * The engine for the worker threads of one process. It uses the platform's `BroadcastChannel` and needs no broker.
 *
 * @example
 * ```ts
 * import { createWebSocketController } from "noroshi";
 * import { broadcastChannelEngine } from "noroshi/broadcast-channel";
 *
 * createWebSocketController({ engine: broadcastChannelEngine() }); // In each worker.
 * ```
 *
 * @module
 */
import * as v from "valibot";
import { checkMs, type Timed } from "../../base/clock.ts";
import type { Engine, EngineHost, EngineStatus, HistoryOptions, Member, PublicationContent, PublishOnce } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { guard } from "../../base/guard.ts";
import { FIRST_ISSUE } from "../../protocol/protocol.ts";
import { PublishedIds } from "../published-ids.ts";
import { checkNamespace } from "../broker/channel-name.ts";
import { Dropped } from "../broker/dropped.ts";
import { type DropReason, isJson } from "../broker/envelope.ts";
import { type Difference, fromWire, OwnMembers, PresenceSet, type RankedMember, toWire } from "../broker/presence.ts";

/** Options of {@link broadcastChannelEngine}. */
export interface BroadcastChannelEngineOptions {
  /** Separates applications in one process: 1 to 32 letters, digits, `_` or `-`. @default {"noroshi"} */
  namespace?: string;
  /** Silence after which a worker counts as dead and its members are removed, in ms. @default {10_000} */
  lease?: number;
  /** Maximum length of a publication or message, in characters. A longer one is refused, and dropped if another worker sends it. @default {900_000} */
  maxLength?: number;
}

/**
 * Creates an engine that connects the worker threads of one process. It stores no histories, so `new Channels` refuses a channel with
 * one.
 *
 * @throws {TypeError} for an invalid option, or if the platform has no `BroadcastChannel`.
 */
export function broadcastChannelEngine(options: BroadcastChannelEngineOptions = {}): BroadcastChannelEngine {
  return new BroadcastChannelEngine(options);
}

/** Maximum number of members in one message. */
const MAX_MEMBERS = 1_000;

/** Number of heartbeats that a worker may miss. Their interval is a third of the lease. */
const MISSED_HEARTBEATS = 3;

const node = v.pipe(v.string(), v.minLength(1), v.maxLength(64));
const channel = v.pipe(v.string(), v.minLength(1), v.maxLength(255));
const json = v.pipe(v.string(), v.check(isJson));
const once = v.optional(v.object({ id: v.pipe(v.string(), v.maxLength(1_024)), window: v.pipe(v.number(), v.minValue(0)) }));
const member = {
  channel,
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(json),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
};

/** Messages between workers. A new worker sends `hello`, which the others answer with `here` and their members. */
const MessageSchema = v.variant("type", [
  v.object({ type: v.picklist(["hello", "beat", "bye"]), node }),
  v.object({
    type: v.literal("here"),
    node,
    members: v.pipe(v.array(v.object(member)), v.maxLength(MAX_MEMBERS)),
  }),
  v.object({ type: v.literal("message"), node, text: v.string() }),
  v.object({
    type: v.literal("event"),
    node,
    channel,
    event: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
    data: json,
    once,
    traceparent: v.optional(v.pipe(v.string(), v.maxLength(64))),
  }),
  v.object({ type: v.literal("member"), node, ...member, left: v.boolean() }),
]);

type Message = v.InferOutput<typeof MessageSchema>;

/** Engine whose nodes are the worker threads of one process. */
export class BroadcastChannelEngine implements Engine, Timed {
  /** Whether the engine can be used now. */
  status: EngineStatus = "ready";
  /** Always `true`, because only code of this process can write to the channel. */
  readonly isSigned = true;
  /** When it sweeps next, in ms of the monotonic clock. */
  readonly deadline: number = 0;
  /** Index in the heap of deadlines. */
  readonly heapIndex: number = -1;

  readonly #options: Required<BroadcastChannelEngineOptions>;
  readonly #subscribed = new Set<string>();
  readonly #own = new OwnMembers();
  /** The members of each channel on all nodes. */
  readonly #members = new Map<string, PresenceSet>();
  /** By other node: the number of this node's heartbeats when that node last sent something. A blocked thread sends none, so it removes no node. */
  readonly #otherNodes = new Map<string, number>();
  readonly #dropped = new Dropped("a BroadcastChannel");
  /** Ids that this node has published or received. */
  readonly #ids = new PublishedIds();
  #host: EngineHost | undefined;
  #channel: BroadcastChannel | undefined;
  #heartbeats = 0;
  /** Whether `hello` was sent since the last heartbeat. */
  #hasRequestedMembers = false;

  /** Creates the engine; it starts with its controller. @throws {TypeError} as {@link broadcastChannelEngine}. */
  constructor({ namespace = "noroshi", lease = 10_000, maxLength = 900_000 }: BroadcastChannelEngineOptions = {}) {
    checkNamespace(namespace);
    checkMs("Cannot create the engine: lease", lease);
    if (!(Number.isFinite(maxLength) && maxLength >= 1)) {
      throw new TypeError("Cannot create the engine: maxLength must be a number from 1");
    }
    if (!("BroadcastChannel" in globalThis)) {
      throw new TypeError("Cannot create the engine: the platform has no BroadcastChannel, use noroshi/redis or noroshi/nats");
    }
    this.#options = { namespace, lease, maxLength };
  }

  /** Number of dropped messages, by reason. They mean that other code writes to the `BroadcastChannel`. */
  get dropped(): Readonly<Record<string, number>> {
    return this.#dropped.counts;
  }

  /** Number of channels with subscriptions or members. */
  get channels(): number {
    return new Set([...this.#subscribed, ...this.#members.keys()]).size;
  }

  /** Refuses every history. @throws {TypeError} always: worker threads have no store in common. */
  check(_history: HistoryOptions): never {
    throw new TypeError(
      "Cannot keep a history: worker threads have no store in common, declare the channel without one or use noroshi/redis or noroshi/nats",
    );
  }

  /** Starts the engine for one controller. @throws {TypeError} if it was started before. */
  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it belongs to another controller, make one for each");
    this.#host = host;
    const channel = this.#channel = new BroadcastChannel(`noroshi:${this.#options.namespace}`);
    const receive = (data: unknown) => guard(() => this.#receive(host, data), (error) => host.report(error));
    channel.onmessage = ({ data }) => receive(data);
    channel.onmessageerror = () => receive(undefined);
    // The engine must not keep the process alive. Deno has no `unref`, so there the process ends only after `close`.
    (channel as { unref?(): void }).unref?.();
    this.#requestMembers();
    host.deadlines.set(this, this.#options.lease / 3);
  }

  /** Sends a message to the other nodes. */
  send(text: string): void {
    const host = this.#started("send");
    this.#checkLength("send", text);
    this.#post({ type: "message", node: host.node, text });
  }

  /** Lists the live nodes, including this one. */
  nodes(): string[] {
    const host = this.#started("list the nodes");
    return [host.node, ...this.#otherNodes.keys()];
  }

  /** Subscribes this node to a channel. */
  subscribe(channel: string, history: HistoryOptions | null): null {
    this.#started("subscribe");
    if (history) this.check(history);
    this.#subscribed.add(channel);
    return null;
  }

  /** Ends the subscription of this node. */
  unsubscribe(channel: string): void {
    this.#subscribed.delete(channel);
  }

  /** Publishes to a channel. @throws {TypeError} for a channel with a history. */
  publish(channel: string, content: PublicationContent, history: HistoryOptions | null, once?: PublishOnce): null {
    const host = this.#started("publish");
    if (history) this.check(history);
    this.#checkLength("publish", content.data);
    if (once && this.#ids.find(channel, once, host.now()) !== undefined) return null;
    if (once) this.#ids.checkRoom();
    this.#post({ type: "event", node: host.node, channel, ...content, once });
    if (once) this.#ids.add(channel, once, null, host.now());
    if (this.#subscribed.has(channel)) host.published(channel, { ...content, position: null });
    return null;
  }

  /** Refuses to read a history. @throws {TypeError} always: there is none. */
  read(_channel: string, history: HistoryOptions): never {
    this.#started("read");
    return this.check(history);
  }

  /** Adds or updates a member of a channel. */
  join(channel: string, member: Member): void {
    const host = this.#started("join");
    this.#checkLength("join", member.data ?? "");
    this.#own.join(channel, member);
    const ranked = this.#ranked(channel, member);
    this.#post({ type: "member", node: host.node, channel, ...toWire(ranked), left: false });
    this.#change(host, channel, (set) => set.join({ node: host.node, ...ranked }));
  }

  #ranked(channel: string, member: Member): RankedMember {
    if (!this.#own.needsRank(member)) return this.#own.ranked(member);
    return this.#own.ranked(member, (this.#members.get(channel) ?? new PresenceSet()).nextRank(member.user));
  }

  /** Removes a member from a channel. */
  leave(channel: string, user: string): void {
    const leave = this.status === "closed" ? undefined : this.#own.leave(channel, user);
    if (!leave) return;
    this.#own.confirmLeave(leave);
    const host = this.#started("leave");
    this.#post({ type: "member", node: host.node, channel, user, left: true });
    this.#change(host, channel, (set) => set.leave(host.node, user));
  }

  /** Lists the members of a channel. */
  members(channel: string): Member[] {
    this.#started("list the members");
    return this.#members.get(channel)?.members ?? [];
  }

  /** Ends the engine; it cannot be started again. */
  close(): void {
    const host = this.#host;
    if (this.status === "closed") return;
    this.status = "closed";
    if (!host) return;
    host.deadlines.delete(this);
    this.#own.clear();
    this.#ids.clear();
    for (const held of [this.#subscribed, this.#members, this.#otherNodes]) held.clear();
    // Deno 2.9 throws here if the channel was opened in the turn in which the thread's last one was closed.
    guard(() => this.#post({ type: "bye", node: host.node }), (error) => host.report(error));
    this.#channel!.close(); // Set by `start`.
  }

  /** Sends a heartbeat, and removes the nodes that have missed theirs. */
  due(): void {
    const host = this.#started("send a heartbeat");
    this.#heartbeats++;
    this.#hasRequestedMembers = false;
    const dead = [...this.#otherNodes].filter(([, seen]) => this.#heartbeats - seen > MISSED_HEARTBEATS).map(([node]) => node);
    this.#post({ type: "beat", node: host.node });
    host.deadlines.set(this, this.#options.lease / 3);
    this.#removeNodes(host, dead);
  }

  #receive(host: EngineHost, data: unknown): void {
    if (this.status === "closed") return;
    const parsed = v.safeParse(MessageSchema, data, FIRST_ISSUE);
    if (!parsed.success) return this.#drop("malformed");
    const message = parsed.output;
    if (lengthOf(message) > this.#options.maxLength) return this.#drop("oversized");
    const { type, node } = message;
    if (type === "bye") return this.#removeNodes(host, [node]);
    // The members of a node that was unknown or considered dead are unknown.
    if (!this.#otherNodes.has(node) && type !== "hello" && type !== "here") this.#requestMembers();
    this.#otherNodes.set(node, this.#heartbeats);
    switch (type) {
      case "hello":
        return this.#sendMembers(host);
      case "here":
        for (const { channel, ...member } of message.members) {
          this.#change(host, channel, (set) => set.join({ node, ...fromWire(member) }));
        }
        return;
      case "message":
        return host.received(message.text);
      case "event": {
        const { channel, event, data, once, traceparent } = message;
        // Two workers may publish the same id at the same time.
        if (once && this.#ids.find(channel, once, host.now()) !== undefined) return;
        if (once) this.#ids.add(channel, once, null, host.now());
        if (this.#subscribed.has(channel)) {
          host.published(channel, { event, data, position: null, ...(traceparent !== undefined && { traceparent }) });
        }
        return;
      }
      case "member":
        return this.#change(
          host,
          message.channel,
          (set) => message.left ? set.leave(node, message.user) : set.join({ node, ...fromWire(message) }),
        );
    }
  }

  /** Requests the members of all nodes, at most once per heartbeat, because each node sends all of its members. */
  #requestMembers(): void {
    if (this.#hasRequestedMembers) return;
    this.#hasRequestedMembers = true;
    this.#post({ type: "hello", node: this.#started("request the members").node });
  }

  #sendMembers(host: EngineHost): void {
    const members = this.#own.all.map(({ channel, member }) => ({ channel, ...toWire(this.#ranked(channel, member)) }));
    do {
      this.#post({ type: "here", node: host.node, members: members.splice(0, MAX_MEMBERS) });
    } while (members.length > 0);
  }

  #removeNodes(host: EngineHost, nodes: readonly string[]): void {
    if (nodes.filter((node) => this.#otherNodes.delete(node)).length === 0) return;
    const alive = new Set([host.node, ...this.#otherNodes.keys()]);
    for (const channel of [...this.#members.keys()]) this.#change(host, channel, (set) => set.retainNodes(alive));
  }

  #change(host: EngineHost, channel: string, change: (set: PresenceSet) => Difference): void {
    const set = this.#members.get(channel) ?? new PresenceSet();
    const { joined, left } = change(set);
    if (set.size > 0) this.#members.set(channel, set);
    else this.#members.delete(channel);
    if (joined.length + left.length > 0 && this.#subscribed.has(channel)) host.present(channel, joined, left);
  }

  #post(message: Message): void {
    this.#channel!.postMessage(message); // Set by `start`.
  }

  #started(action: string): EngineHost {
    if (this.status === "closed") {
      throw new WebSocketError("engine", "ENGINE_UNAVAILABLE", `Cannot ${action}: the engine is closed`);
    }
    if (!this.#host) throw new TypeError("Cannot use the engine: pass it to a controller, which starts it");
    return this.#host;
  }

  #checkLength(action: string, text: string): void {
    if (text.length <= this.#options.maxLength) return;
    throw new WebSocketError(
      "engine",
      "LIMIT_EXCEEDED",
      `Cannot ${action}: ${text.length} characters are more than maxLength allows`,
    );
  }

  #drop(reason: DropReason): void {
    this.#dropped.count(reason, this.#started("count"));
  }
}

/** Length of the longest text in a message, in characters. */
function lengthOf(message: Message): number {
  switch (message.type) {
    case "message":
      return message.text.length;
    case "event":
    case "member":
      return message.data?.length ?? 0;
    case "here":
      return message.members.reduce((longest, { data = "" }) => Math.max(longest, data.length), 0);
    default:
      return 0;
  }
}
