import * as v from "valibot";
import type { ExtensionHost } from "../application/extension.ts";
import { connectionOf, sendAnswer, type WebSocketClient } from "../application/websocket-client.ts";
import type { ChannelTable, ResolvedChannel } from "./channel-options.ts";
import type { Awaitable, Position } from "../engines/engine.ts";
import type { IdQuota } from "./id-quota.ts";
import { answerOf, permit, shownError } from "./permission.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { FIRST_ISSUE, jsonOf, type PublishMessage, PublishMessageSchema, type WebSocketMessage } from "../protocol/protocol.ts";
import { invalid, readPublished } from "./published-data.ts";
import { exceeded, messageOf, refuse, withUid } from "./refusal.ts";

/** What the publications of all clients of a controller share. */
export interface ClientPublicationsHost {
  readonly host: ExtensionHost;
  readonly table: ChannelTable;
  readonly ids: IdQuota;
  /** Returns the ms to wait if the channel is not open on this node and the user has named too many such channels; else 0. */
  newName(client: WebSocketClient, channel: string): number;
  /** @param parent the unchecked `traceparent` of the client's message; `null` without one. */
  publish(
    ...args: [channel: string, options: ResolvedChannel, event: string, data: string, id?: string, parent?: unknown]
  ): Awaitable<Position | null>;
}

/** Maximum number of publications of one client that wait for authorization or the engine. */
const MAX_PUBLISHING = 1_024;

/** Answers the `publish` messages of one client. Those to the same channel are published and answered in order. */
export class ClientPublications {
  readonly #client: WebSocketClient;
  readonly #shared: ClientPublicationsHost;
  /** Completion of the latest publication to each channel; the next one waits for it. */
  readonly #latest = new Map<string, Promise<void>>();
  #count = 0;

  constructor(client: WebSocketClient, shared: ClientPublicationsHost) {
    this.#client = client;
    this.#shared = shared;
  }

  /** Whether a publication is not answered yet. */
  get isBusy(): boolean {
    return this.#count > 0;
  }

  publish(message: WebSocketMessage): void {
    const client = this.#client;
    const { host, ids, newName, table } = this.#shared;
    const parsed = v.safeParse(PublishMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) return refuse(client, message, invalid("publish", parsed.issues[0]));
    const request = parsed.output;
    const { channel, id } = request;
    const options = table.find(channel);
    if (!options) return refuse(client, request, new WebSocketError("publish", "FORBIDDEN", "Not allowed"));
    if (this.#count >= MAX_PUBLISHING) {
      return refuse(client, request, new WebSocketError("publish", "LIMIT_EXCEEDED", "Too many publications in progress"));
    }
    const wait = newName(client, channel) || (id === undefined ? 0 : ids.takeId(host.keyOf(client), `${channel} ${id}`));
    if (wait > 0) return refuse(client, request, exceeded("publish", wait));
    const latest = this.#latest;
    const before = latest.get(channel);
    this.#count++;
    const done = this.#publish(request, options, before, message["traceparent"] ?? null).catch((error) =>
      refuse(client, request, shownError(error, "publish", { client, host }))
    );
    latest.set(channel, done);
    void done.then(() => {
      this.#count--;
      if (latest.get(channel) === done) latest.delete(channel);
    });
  }

  /** Publishes after `before`, however long the authorization takes. */
  async #publish(
    request: PublishMessage,
    options: ResolvedChannel,
    before: Promise<void> | undefined,
    parent: unknown,
  ): Promise<void> {
    const { channel, event, data = null, uid, id } = request;
    const client = this.#client;
    const { host } = this.#shared;
    const ask = () => permit(options, { client, channel, params: options.params(channel), action: "publish", event, data }, host);
    const connection = connectionOf(client);
    let { accountability } = client;
    // Authorizes without waiting for `before`. The empty catch prevents an unhandled rejection until the await below.
    const permission = ask();
    permission.catch(() => {});
    if (before) await before;
    await permission;
    const reading = answerOf(() => readPublished(options, event, data), "publish", host);
    const read = reading instanceof Promise ? await reading : reading;
    // Meanwhile the client may have left, or its user or rights may have changed.
    for (;;) {
      if (connection.revalidating) await connection.revalidating;
      else if (connection.isSuspended) return connection.refuseMessage(uid);
      else if (client.accountability === accountability) break;
      else if (client.accountability.user !== accountability.user) {
        throw new WebSocketError("publish", "FORBIDDEN", "Another user");
      } else {
        ({ accountability } = client);
        await ask();
      }
    }
    const json = jsonOf(read.data);
    if (json === undefined) throw new TypeError(`Cannot publish to "${channel}": the output of the schema is not JSON`);
    // Ids of all anonymous clients share one scope, because an address may change at a reconnect.
    const scoped = id === undefined ? id : JSON.stringify([client.accountability.user, id]);
    // From here on the outcome is answered, not `TOKEN_EXPIRED`, after which a client publishes again.
    try {
      const position = await this.#shared.publish(channel, options, event, json, scoped, parent);
      sendAnswer(client, { type: "publish", status: "ok", ...withUid(uid), ...position });
    } catch (error) {
      sendAnswer(client, messageOf(request, shownError(error, "publish", { client, host })));
    }
  }
}
