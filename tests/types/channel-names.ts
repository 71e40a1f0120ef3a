/**
 * Which names of channels compile, and whose types they have, for the compiler only: each `@ts-expect-error` stands over a misuse.
 * Compiled as contract.ts.
 */
import * as v from "valibot";
import { defineContract, WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import {
  type BareClient,
  type ChannelName,
  type ChannelOf,
  type Client,
  createClient,
  type DataTo,
  type EventOf,
} from "../../src/client/client.ts";
import { usePresence, useSubscription } from "../../src/client/react.ts";
import { createPublisher, type Publisher, type PublisherOptions } from "../../src/publisher/publisher.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(
  ..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? []
    : [never]
): void {}

const Text = v.object({ text: v.string() });

/** Each has an event of its own, which its name has in the tests below. */
const contract = defineContract({
  channels: {
    lobby: { events: { lobby: Text } },
    "room:{id}": {
      events: { room: Text },
      snapshot: v.array(v.string()),
      member: Text,
    },
    "doc:{id}": { events: { doc: Text } },
    "{kind}:main": { events: { main: Text } },
    "x:{a}": { events: { x: Text } },
    "{b}:y": { events: { y: Text } },
    "log:*": { events: { log: Text } },
    "log:vip:*": { events: { vip: Text } },
    "log:{id}:long:*": { events: { long: Text } },
    "{a}:vip:longest:*": { events: { longest: Text } },
    "of:{a}.{b}-{c}": { events: { three: Text } },
    "open:{id}*": { events: { open: Text } },
    "end:{id}x*": { events: { end: Text } },
  },
});
type Contract = typeof contract;

declare const client: Client<Contract>;
declare const channels: Channels<Contract>;
declare const publisher: Publisher<Contract>;

/** The event of the declaration that a name has. */
type Found<Name extends string> = EventOf<ChannelOf<Contract, Name>>;

/** A name has the type of one declaration: that which `ChannelTable` finds. */
export function declarations(): void {
  same<
    [
      Found<"lobby">,
      Found<"room:1">,
      Found<`room:${string}`>,
      Found<`room:${number}`>,
    ],
    ["lobby", "room", "room", "room"]
  >();
  same<
    [Found<"doc:1">, Found<"doc:main">, Found<"text:main">],
    ["doc", "main", "main"]
  >(); // The most other characters.
  same<
    [Found<"log:">, Found<"log:1">, Found<"log:1:2">],
    ["log", "log", "log"]
  >();
  same<
    [Found<"log:vip:">, Found<"log:vip:1">, Found<`log:vip:${string}`>],
    ["vip", "vip", "vip"]
  >();
  same<
    [Found<"log:1:long:">, Found<"log:vip:long:1">, Found<"log:vip:longest:1">],
    ["long", "long", "longest"]
  >();
  same<
    [
      Found<"of:x.y-z">,
      Found<"of:.x.y-z">,
      Found<"of:x.y-z-">,
      Found<"of:x.y.z">,
    ],
    ["three", "three", "three", never]
  >();
  same<
    [Found<"open:ab:c">, Found<"open:">, Found<"open::">],
    ["open", never, never]
  >();
  same<
    [Found<"end:abx:d">, Found<"end:xx">, Found<"end:x">],
    ["end", "end", never]
  >();
  same<
    [Found<"x:1">, Found<"1:y">, Found<"x:y">, Found<"room:main">],
    ["x", "y", never, never]
  >();
}

/** Wherever a name is passed. */
export function names(
  id: string,
  name: string,
  either: "lobby" | `room:${string}`,
  any: ChannelName<Contract>,
): void {
  client.subscribe("lobby");
  client.subscribe("room:1", {
    onInit: ({ data }) => same<typeof data, string[]>(),
  });
  client.subscribe(`room:${id}`, { onEvent: ({ data }) => data.text });
  client.subscribe(either);
  client.subscribe(any);
  void client.publish(`room:${id}`, "room", { text: "" });
  void publisher.publish(`room:${id}`, "room", { text: "" });
  void channels.publish(`room:${id}`, "room", { text: "" });
  void channels.publish(name, "anything", 1); // Known at run time only.
  void channels.presence(name);
  // @ts-expect-error -- a parameter takes no ":"
  client.subscribe("room:1:x");
  // @ts-expect-error -- a parameter takes no "/"
  client.subscribe("room:1/x");
  // @ts-expect-error -- nor is it empty
  client.subscribe("room:");
  // @ts-expect-error -- whatever the id
  client.subscribe(`room:${id}:x`);
  // @ts-expect-error -- one of the two
  client.subscribe("room:1" as "room:1" | "room:1:x");
  // @ts-expect-error -- two declarations are equally specific
  client.subscribe("x:y");
  // @ts-expect-error -- a name has no space
  client.subscribe("room:hello world");
  // @ts-expect-error -- a declaration, and not a name
  client.subscribe("room:{id}");
  // @ts-expect-error -- a declaration, and not a name
  client.subscribe("log:*");
  // @ts-expect-error -- no such channel
  void client.publish("room:1:x", "room", { text: "" });
  // @ts-expect-error -- an event of the declaration with fewer other characters
  void client.publish("doc:main", "doc", { text: "" });
  // @ts-expect-error -- no such channel
  void publisher.publish("room:", "room", { text: "" });
  // @ts-expect-error -- an event of a shorter prefix
  void publisher.publish("log:vip:1", "log", { text: "" });
  // @ts-expect-error -- no such channel
  void channels.publish("room:1:x", "room", { text: "" });
  // @ts-expect-error -- a name has no space
  void channels.publish("log:hello world", "log", { text: "" });
  // @ts-expect-error -- an event of the declaration with fewer other characters
  void channels.publish("doc:main", "doc", { text: "" });
  // @ts-expect-error -- no such channel
  void channels.history("room:");
  // @ts-expect-error -- no such channel
  void channels.presence("room:1:x");
}

export function publishers({ engine }: PublisherOptions): void {
  createPublisher({ engine, contract, channels: { "room:{id}": {}, lobby: {} } });
  createPublisher({ engine, channels: { anything: {} } });
  // @ts-expect-error -- no such channel
  createPublisher({ engine, contract, channels: { "room:{id}": {}, "romo:{id}": {} } });
}

export function hooks(id: string): void {
  same<ReturnType<typeof subscribed>, string[]>();
  function subscribed() {
    return useSubscription(client, `room:${id}`, {
      initial: [] as string[],
      reduce: (texts, item) => item.event === "init" ? item.data : [...texts, item.data.text],
    }).state;
  }
  for (
    const { data } of usePresence(client, `room:${id}`, { data: { text: "" } })
  ) {
    same<typeof data, { text: string } | undefined>();
  }
  // @ts-expect-error -- no such channel
  useSubscription(client, "room:1:x");
  // @ts-expect-error -- no such channel
  usePresence(client, "room:");
}

/** Functions that pass a name on. */
export const generic = {
  ofAnyContract: <C, Name extends ChannelName<C>>(
    client: BareClient<C>,
    name: Name,
  ) => client.subscribe(name),
  ofTheContract: <Name extends ChannelName<Contract>>(name: Name) => client.subscribe(name),
  ofAnyId: <Id extends string>(id: Id) => client.subscribe(`room:${id}`),
  publish: <
    C,
    Name extends ChannelName<C>,
    Event extends EventOf<ChannelOf<C, Name>>,
  >(
    client: Client<C>,
    name: Name,
    event: Event,
    data: DataTo<ChannelOf<C, Name>, Event>,
  ) => client.publish(name, event, data),
  subscription: <C, Name extends ChannelName<C>>(
    client: BareClient<C>,
    name: Name,
  ) => useSubscription(client, name),
  presence: <C, Name extends ChannelName<C>>(
    client: BareClient<C>,
    name: Name,
  ) => usePresence(client, name),
  members: <Name extends ChannelName<Contract>>(name: Name) => channels.presence(name),
  anyClient: (client: Client, name: string) => client.subscribe(name),
};
generic.anyClient(client, "lobby");

/** Without a contract the declarations say which names there are. */
export function withoutContract(name: string): void {
  const authorize = () => true;
  const open = new Channels(new WebSocketController(), {
    "room:{id}": { authorize },
    "doc:*": { authorize },
  });
  void open.publish("room:1", "anything", 1);
  void open.publish("doc:", "anything", 1);
  void open.publish(name, "anything", 1);
  // @ts-expect-error -- a parameter takes no ":"
  void open.publish("room:1:x", "anything", 1);
  // @ts-expect-error -- nor is it empty
  void open.presence("room:");
  createClient("ws://localhost").subscribe("room:1:x");
  createClient<{ channels: Record<string, { events: { said: string } }> }>(
    "ws://localhost",
  ).subscribe(name, {
    onEvent: ({ data }) => same<typeof data, string>(),
  });
}
