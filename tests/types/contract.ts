/**
 * What a contract allows and refuses on the server, for the compiler only. Each `@ts-expect-error` stands over a misuse;
 * tests/product/misuse.test.ts compiles this file with the oldest and the newest TypeScript.
 */
import * as v from "valibot";
import {
  createWebSocketController,
  defineContract,
  getWebSocketController,
  type WebSocketClient,
  WebSocketController,
  WebSocketService,
} from "../../mod.ts";
import { type ChannelDeclarations, Channels } from "../../src/channels/channels.ts";
import { type Client, createClient, type StreamingClient } from "../../src/client/client.ts";
import { streams as clientStreams } from "../../src/client/streams.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? [] : [never]): void {}

const Text = v.object({ text: v.string() });
const Said = v.object({ text: v.string(), likes: v.optional(v.number(), 0) });

const contract = defineContract({
  requests: {
    say: { payload: Text, reply: v.object({ id: v.number() }) },
    count: { payload: v.object({ amount: v.pipe(v.string(), v.transform(Number)) }) },
    now: { reply: v.number() },
    nothing: {},
    ask: { payload: Text, reply: v.object({ usage: v.number() }), stream: { output: v.string() } },
    tail: { stream: { output: v.number() } },
    convert: {
      payload: Text,
      reply: v.object({ usage: v.number() }),
      stream: { input: v.pipe(v.string(), v.transform(Number)), output: v.string() },
    },
    upload: { reply: v.number(), stream: { input: v.string() } },
  },
  questions: {
    confirm: { payload: Text, reply: v.object({ yes: v.boolean(), amount: v.pipe(v.string(), v.transform(Number)) }) },
    "ready?": { reply: v.optional(v.number()) },
    anything: { payload: v.object({ text: v.optional(v.string()) }) },
  },
  messages: { news: Text, reload: v.object({}) },
  channels: {
    "room:*": {
      events: { said: Said, cleared: v.null() },
      snapshot: v.array(v.string()),
      member: v.object({ name: v.string() }),
    },
    wire: { events: { posted: Text } },
    "tenant:{tenant}:board:{board}": { events: { moved: v.object({ x: v.number() }) } },
    "tenant:{tenant}:*": { events: { logged: Text } },
  },
});

export const controller = new WebSocketController<typeof contract>();
export const service = new WebSocketService(controller);
const room = { authorize: () => true };
const others = { wire: room, "tenant:{tenant}:board:{board}": room, "tenant:{tenant}:*": room };

export function handlers(): void {
  controller.handle("say", contract.requests.say, ({ message }) => {
    same<typeof message.text, string>();
    return { id: message.text.length };
  });
  controller.handle("count", contract.requests.count, ({ message }) => {
    same<typeof message.amount, number>();
  });
  controller.handle("now", contract.requests.now, () => Promise.resolve(7));
  controller.handle("now", contract.requests.now, () => new Promise((resolve) => resolve(7)));
  controller.handle("nothing", contract.requests.nothing, () => {});
  // A schema of its own must output what the contract says, and its handler must answer so.
  controller.handle("say", v.object({ text: v.pipe(v.string(), v.trim()) }), ({ message }) => ({ id: message.text.length }));
  // @ts-expect-error -- no such request
  controller.handle("sya", contract.requests.say, () => ({ id: 1 }));
  // @ts-expect-error -- the declaration of another request
  controller.handle("say", contract.requests.count, () => ({ id: 1 }));
  // @ts-expect-error -- the contract says a number
  controller.handle("say", contract.requests.say, () => ({ id: "1" }));
  // @ts-expect-error -- the contract says a number, whatever schema is passed
  controller.handle("say", Text, () => ({ id: "1" }));
  // @ts-expect-error -- no such field
  controller.handle("say", contract.requests.say, ({ message }) => ({ id: message.length }));
}

export function streams(): void {
  controller.handle("ask", contract.requests.ask, async function* ({ message, signal }) {
    same<typeof message.text, string>();
    same<typeof signal, AbortSignal>();
    yield message.text;
    return { usage: 1 };
  });
  // Without a result any source does. It may come later.
  controller.handle("tail", contract.requests.tail, async function* () {
    yield 1;
  });
  controller.handle("tail", contract.requests.tail, () => new ReadableStream<number>());
  controller.handle("tail", contract.requests.tail, () => Promise.resolve({ [Symbol.asyncIterator]: () => numbers() }));
  // An answer without items, such as one from a cache.
  controller.handle("ask", contract.requests.ask, () => ({ usage: 0 }));
  // @ts-expect-error -- the contract says a string
  controller.handle("ask", contract.requests.ask, async function* () {
    yield 1;
    return { usage: 1 };
  });
  // @ts-expect-error -- the contract says a number
  controller.handle("ask", contract.requests.ask, async function* () {
    yield "";
    return { usage: "" };
  });
  // @ts-expect-error -- the contract says a number
  controller.handle("tail", contract.requests.tail, () => new ReadableStream<string>());
  // @ts-expect-error -- the contract declares no items
  controller.handle("say", contract.requests.say, async function* () {
    yield 1;
  });
  defineContract({
    // @ts-expect-error -- the schema of an item is called output
    requests: { ask: { stream: { items: v.string() } } },
  });
  const untyped = new WebSocketController();
  untyped.handle("ask", Text, async function* () {
    yield 1;
  });
  untyped.handle("say", Text, () => new Promise((resolve) => resolve("later")));
}

async function* numbers(): AsyncGenerator<number> {
  yield 1;
}

async function* texts(): AsyncGenerator<string> {
  yield "";
}

export function inputs(): void {
  controller.handle("convert", contract.requests.convert, async function* ({ input }) {
    for await (const item of input) {
      same<typeof item, number>();
      yield String(item);
    }
    return { usage: 1 };
  });
  controller.handle("upload", contract.requests.upload, async ({ input }) => {
    let length = 0;
    for await (const chunk of input) length += chunk.length;
    return length;
  });
  controller.handle("ask", contract.requests.ask, ({ input }) => {
    same<typeof input, undefined>();
    return { usage: 0 };
  });
  // @ts-expect-error -- a request with input alone is answered at once
  controller.handle("upload", contract.requests.upload, async function* () {
    yield 1;
  });
  controller.handle("convert", contract.requests.convert, async ({ input }) => {
    // @ts-expect-error -- an item is a number
    for await (const item of input) item.length;
    return { usage: 1 };
  });
  defineContract({
    // @ts-expect-error -- a stream has at least one of the two
    requests: { ask: { stream: {} } },
  });
  defineContract({
    // @ts-expect-error -- the input is a schema
    requests: { ask: { stream: { input: "text", output: v.string() } } },
  });
  const untyped = new WebSocketController();
  untyped.handle("sum", { stream: { input: v.number() } }, async ({ input }) => {
    for await (const item of input) same<typeof item, number>();
  });
  untyped.handle("ask", Text, ({ input }) => same<typeof input, undefined>());
}

export async function inputsOfClients(): Promise<void> {
  const client = createClient<typeof contract>("ws://localhost", { streams: clientStreams });
  // The client sends what the schema takes, not what it outputs.
  const stream = client.stream("convert", { text: "" }, { input: texts() });
  for await (const item of stream) same<typeof item, string>();
  same<Awaited<typeof stream.result>, { usage: number }>();
  const upload = client.stream("upload", {}, { input: texts(), signal: new AbortController().signal });
  same<Awaited<typeof upload.result>, number>();
  for await (const item of upload) same<typeof item, never>();
  // @ts-expect-error -- its items are strings
  client.stream("convert", { text: "" }, { input: numbers() });
  // @ts-expect-error -- it has input
  client.stream("upload", {});
  // @ts-expect-error -- it has input
  client.stream("upload");
  // @ts-expect-error -- it has none
  client.stream("ask", { text: "" }, { input: texts() });
  // @ts-expect-error -- an array would be sent at once
  client.stream("upload", {}, { input: [""] });
  createClient("ws://localhost", { streams: clientStreams, lazy: true }).stream("anything", {}, { input: numbers() });
  same<typeof client, StreamingClient<typeof contract>>();
  const without = createClient<typeof contract>("ws://localhost", { lazy: true });
  same<typeof without, Client<typeof contract>>();
  // @ts-expect-error -- it needs the option `streams`
  without.stream("ask", { text: "" });
}

export function broadcasts(): void {
  service.broadcast({ type: "news", text: "Hello" }, { role: "editor" });
  service.broadcast({ type: "reload" });
  service.broadcast("an encoded frame");
  void controller.broadcast({ type: "news", text: "Hello" });
  // @ts-expect-error -- the contract says a string
  service.broadcast({ type: "news", text: 1 });
  // @ts-expect-error -- the text is missing
  service.broadcast({ type: "news" });
  // @ts-expect-error -- no such field
  service.broadcast({ type: "news", text: "Hello", title: "Hello" });
  // @ts-expect-error -- no such message
  service.broadcast({ type: "nwes", text: "Hello" });
  // @ts-expect-error -- the contract says a string
  void controller.broadcast({ type: "news", text: 1 });
}

export const channels = new Channels(controller, {
  "room:*": {
    authorize: ({ channel, action }) => {
      same<typeof channel, `room:${string}`>();
      return action === "subscribe" || channel === "room:1";
    },
    // Clients may publish some of the events.
    schema: { said: contract.channels["room:*"].events.said },
    snapshot: async ({ channel, history }) => {
      same<typeof channel, `room:${string}`>();
      const { publications } = await history({ limit: 10 });
      return publications.map((each) => each.event === "said" ? each.data.text : "");
    },
    history: { size: 10, ttl: 60_000 },
    presence: { data: ({ client, channel }) => ({ name: `${client.uid} in ${channel}` }) },
  },
  wire: { authorize: () => false, history: { size: 10, ttl: 60_000 } },
  "tenant:{tenant}:board:{board}": {
    authorize: ({ channel, event, params }) => {
      same<typeof channel, `tenant:${string}:board:${string}`>();
      same<typeof event, "moved" | undefined>();
      same<typeof params, { readonly tenant: string; readonly board: string }>();
      return params.tenant === "acme";
    },
    snapshot: ({ params }) => params.board,
    presence: { data: ({ params }) => params.board },
  },
  "tenant:{tenant}:*": { authorize: ({ params }) => params.tenant === "acme" },
});

export async function questions(asked: WebSocketClient<typeof contract>, untyped: WebSocketClient): Promise<void> {
  const answer = await asked.ask("confirm", { text: "Delete it?" }, { timeout: 1_000 });
  same<typeof answer, { yes: boolean; amount: number }>();
  same<Awaited<ReturnType<typeof ready>>, number | undefined>();
  function ready() {
    return asked.ask("ready?");
  }
  const own = await asked.ask("anything", {}, { reply: v.object({ id: v.number() }) });
  same<typeof own, { id: number }>();
  const { replies } = await controller.askAll("confirm", { text: "Delete it?" }, { role: "player" });
  same<(typeof replies)[number]["data"], { yes: boolean; amount: number }>();
  void controller.askAll("ready?");
  void controller.askAll("ready?", {}, { user: "mika" }, { timeout: 1_000 });
  const free = await untyped.ask("confirm", { text: 1 });
  same<typeof free, unknown>();
  const validated = await untyped.ask("confirm", {}, { reply: v.object({ yes: v.boolean() }) });
  same<typeof validated, { yes: boolean }>();
  // @ts-expect-error -- no such question
  void asked.ask("cofirm", { text: "Delete it?" });
  // @ts-expect-error -- the contract says a string
  void asked.ask("confirm", { text: 1 });
  // @ts-expect-error -- the text is missing
  void asked.ask("confirm");
  // @ts-expect-error -- the contract says another answer
  void asked.ask("confirm", { text: "Delete it?" }, { reply: v.object({ yes: v.string() }) });
  // @ts-expect-error -- a question without a payload
  void asked.ask("ready?", { text: "Delete it?" });
  // @ts-expect-error -- no such question
  void controller.askAll("redy?");
  // @ts-expect-error -- the contract says a string
  void controller.askAll("confirm", { text: 1 });
  // @ts-expect-error -- the text is missing
  void controller.askAll("confirm");
}

export async function publications(name: string): Promise<void> {
  await channels.publish("room:1", "said", { text: "Hello", likes: 1 });
  await channels.publish(`room:${name}`, "cleared", null);
  await channels.publish("wire", "posted", { text: "Hello" });
  await channels.publish(name, "anything", 1); // Known at run time only.
  await channels.publish("tenant:acme:board:1", "moved", { x: 1 });
  await channels.publish(`tenant:${name}:board:${name}`, "moved", { x: 1 });
  await channels.publish("tenant:acme:log", "logged", { text: "Hello" });
  await channels.publish("tenant:acme:board:1:log", "logged", { text: "Hello" });
  // @ts-expect-error -- an event of another channel
  await channels.publish("tenant:acme:board:1", "logged", { text: "Hello" });
  // @ts-expect-error -- an event of another channel: a parameter takes no ":"
  await channels.publish("tenant:acme:board:1:log", "moved", { x: 1 });
  // @ts-expect-error -- no such channel
  await channels.publish("tenant", "logged", { text: "Hello" });
  for (const publication of (await channels.history("room:1")).publications) {
    if (publication.event === "said") same<typeof publication.data, { text: string; likes: number }>();
    else same<typeof publication.data, null>();
  }
  // @ts-expect-error -- no such channel
  await channels.publish("romo:1", "said", { text: "Hello", likes: 1 });
  // @ts-expect-error -- no such event
  await channels.publish("room:1", "siad", { text: "Hello", likes: 1 });
  // @ts-expect-error -- an event of another channel
  await channels.publish("wire", "said", { text: "Hello", likes: 1 });
  // @ts-expect-error -- the server publishes the output of the schema, which has a default
  await channels.publish("room:1", "said", { text: "Hello" });
  // @ts-expect-error -- the contract says a string
  await channels.publish("wire", "posted", { text: 1 });
  // @ts-expect-error -- no such channel
  await channels.history("wrie");
  // @ts-expect-error -- no such channel
  await channels.presence("romo:1");
}

export function declarations(): void {
  // @ts-expect-error -- the channel `wire` is missing
  new Channels(controller, { "room:*": room, "tenant:{tenant}:board:{board}": room, "tenant:{tenant}:*": room });
  // @ts-expect-error -- no such channel
  new Channels(controller, { "room:*": room, ...others, "rooms:*": room });
  new Channels(controller, {
    // @ts-expect-error -- the contract says an array of strings
    "room:*": { authorize: () => true, snapshot: () => 42 },
    ...others,
  });
  new Channels(controller, {
    // @ts-expect-error -- the contract says an array of strings, and this one comes later
    "room:*": { authorize: () => true, snapshot: () => Promise.resolve([42]) },
    ...others,
  });
  new Channels(controller, {
    // @ts-expect-error -- a channel of `room:*` is never called so
    "room:*": { authorize: ({ channel }) => channel === "wire" },
    ...others,
  });
  new Channels(controller, {
    // @ts-expect-error -- the contract says an object with a name
    "room:*": { authorize: () => true, presence: { data: ({ client }) => client.uid } },
    ...others,
  });
  new Channels(controller, {
    // @ts-expect-error -- not the schema of the contract
    "room:*": { authorize: () => true, schema: { said: v.object({ text: v.number() }) } },
    ...others,
  });
  new Channels(controller, {
    // @ts-expect-error -- no such event
    "room:*": { authorize: () => true, schema: { evil: v.string() } },
    ...others,
  });
  new Channels(controller, {
    // @ts-expect-error -- no such event, beside one
    "room:*": { authorize: () => true, schema: { said: Said, evil: v.string() } },
    ...others,
  });
  new Channels(controller, { "room:*": { authorize: () => true, schema: contract.channels["room:*"].events }, ...others });
  new Channels(controller, {
    "room:*": room,
    ...others,
    // @ts-expect-error -- no such parameter
    "tenant:{tenant}:*": { authorize: ({ params }) => params.tenat === "acme" },
  });
  new Channels(controller, {
    // @ts-expect-error -- no such event
    "room:*": { authorize: ({ event }) => event === "siad" },
    ...others,
  });
  // @ts-expect-error -- a misspelt option
  new Channels(controller, { "room:*": room, ...others, wire: { authorize: () => true, histroy: { size: 1, ttl: 1_000 } } });
  new Channels(controller, {
    "room:*": room,
    ...others,
    // @ts-expect-error -- a misspelt option of an option
    wire: { authorize: () => true, history: { size: 1, tll: 1_000, ttl: 1_000 } },
  });
}

/** TypeScript looks for unknown fields in object literals only: a variable is checked by the types of its fields. */
export function variables(): void {
  const schema = { said: Said };
  const more = { said: Said, evil: v.string() };
  const typed = new Channels(controller, {
    "room:*": { authorize: ({ channel }) => channel === "room:1", schema, snapshot: () => [""] },
    ...others,
  });
  const same: Channels<typeof contract> = typed;
  void same.publish("room:1", "said", { text: "Hello", likes: 1 });
  const declared: ChannelDeclarations<typeof contract> = { "room:*": { authorize: () => true, schema }, ...others };
  new Channels(controller, declared);
  new Channels(controller, {
    // @ts-expect-error -- no such event
    "room:*": { authorize: () => true, schema: more },
    ...others,
  });
  const withEvent = { "room:*": { authorize: () => true, schema: more }, ...others };
  // @ts-expect-error -- no such event
  new Channels(controller, withEvent);
  const withChannel = { "room:*": room, ...others, "rooms:*": room };
  // @ts-expect-error -- no such channel
  new Channels(controller, withChannel);
  const withEvents = { events: { said: Said }, event: { evil: v.string() } };
  // @ts-expect-error -- a misspelt field
  defineContract({ channels: { wire: withEvents } });
  const withField = { say: { payload: Text, replay: Text } };
  // @ts-expect-error -- a misspelt field
  defineContract({ requests: withField });
  const withPart = { requests: { say: { payload: Text } }, request: {} };
  // @ts-expect-error -- a misspelt part
  defineContract(withPart);
  anyOf(controller, declared);
  function anyOf<C>(controller: WebSocketController<C>, declarations: ChannelDeclarations<C>): Channels<C> {
    return new Channels(controller, declarations);
  }
}

/** What takes any controller, service or channels also takes those of a contract. */
export function anybody(): void {
  const any: WebSocketController = controller;
  const anyService: WebSocketService = service;
  const anyChannels: Channels = channels;
  void [any, anyService, anyChannels];
  same<ReturnType<typeof createWebSocketController<typeof contract>>, WebSocketController<typeof contract>>();
  same<ReturnType<typeof getWebSocketController<typeof contract>>, WebSocketController<typeof contract>>();
  // The default controller is found at run time: the service is told its contract.
  new WebSocketService<typeof contract>().broadcast({ type: "news", text: "Hello" });
  // @ts-expect-error -- the contract says a string
  new WebSocketService<typeof contract>().broadcast({ type: "news", text: 1 });
}

/** Without a contract the schemas of the channels say what may be published. */
export function withoutContract(): void {
  const open = new Channels(new WebSocketController(), {
    "room:*": {
      authorize: ({ channel }) => channel === "room:1",
      schema: { said: Said },
      history: { size: 10, ttl: 60_000 },
      snapshot: async ({ history }) => (await history()).publications,
    },
    wire: { authorize: () => true, snapshot: () => 42 },
    "board:{id}": { authorize: ({ params }) => params.id === "1" },
  });
  new Channels(new WebSocketController(), { "board:{id}": { authorize: ({ params }) => params["id"] === "1" } });
  void open.publish("board:1", "anything", 1);
  void open.publish("room:1", "said", { text: "Hello", likes: 1 });
  void open.publish("wire", "anything", 1);
  // @ts-expect-error -- no such channel
  void open.publish("say", "said", { text: "Hello", likes: 1 });
  // @ts-expect-error -- no such event
  void open.publish("room:1", "siad", { text: "Hello", likes: 1 });
  // @ts-expect-error -- the schema says a string
  void open.publish("room:1", "said", { text: 1, likes: 1 });
  // @ts-expect-error -- a misspelt option
  new Channels(new WebSocketController(), { wire: { authorize: () => true, histroy: { size: 1, ttl: 1_000 } } });
  // @ts-expect-error -- no schema
  new Channels(new WebSocketController(), { wire: { authorize: () => true, schema: { said: "text" } } });
  // @ts-expect-error -- authorize is missing
  new Channels(new WebSocketController(), { wire: { history: { size: 1, ttl: 1_000 } } });
  // Built at run time.
  const built: ChannelDeclarations = Object.fromEntries([["wire", room]]);
  void new Channels(new WebSocketController(), built).publish("wire", "anything", 1);
  // A contract that has no messages or requests restricts none.
  const partial = new WebSocketController<{ channels: { wire: { events: { posted: { text: string } } } } }>();
  void partial.broadcast({ type: "anything" });
  partial.handle("anything", Text, () => 1);
  void new Channels(partial, { wire: { authorize: () => true, schema: { posted: Text } } }).publish("wire", "posted", {
    text: "",
  });
}

/** A listener receives what no schema has validated. */
export function messages(): void {
  service.on("message", ({ client, message }) => {
    client.send({ type: "news", text: "Hello" });
    if (message.type === "say") same<typeof message.text, unknown>();
    if (message.type === "publish") same<(typeof message)["data"], unknown>();
    // @ts-expect-error -- the contract says a string
    client.send({ type: "news", text: 1 });
    // @ts-expect-error -- no such message
    client.send({ type: "nwes", text: "Hello" });
    // @ts-expect-error -- no such request
    if (message.type === "sya") return;
    // @ts-expect-error -- only `say` has a text
    return message.text;
  });
  controller.handle("say", contract.requests.say, ({ client }) => {
    client.send({ type: "reload" });
    // @ts-expect-error -- no such message
    client.send({ type: "relaod" });
    return { id: 1 };
  });
  for (const client of service.clients()) {
    client.send("an encoded frame");
    // @ts-expect-error -- the text is missing
    client.send({ type: "news" });
  }
  const anyClient = (client: WebSocketClient): void => client.send({ type: "anything" });
  service.on("connect", ({ client }) => anyClient(client));
}

/** The contract may also come as a type argument, where the controller does not know it. */
export function asTypeArgument(): void {
  const typed = new Channels<typeof contract>(new WebSocketController(), { "room:*": room, ...others });
  void typed.publish("room:1", "said", { text: "Hello", likes: 1 });
  // @ts-expect-error -- no such event
  void typed.publish("room:1", "siad", { text: "Hello", likes: 1 });
  // @ts-expect-error -- the channel `wire` is missing
  new Channels<typeof contract>(new WebSocketController(), { "room:*": room });
}

/** The option types the controller as the type argument does. */
export function asOption(): void {
  const controller = new WebSocketController({ contract, validate: "outbound" });
  same<typeof controller, WebSocketController<typeof contract>>();
  same<ReturnType<typeof withOptions>, WebSocketController<typeof contract>>();
  const untyped = new WebSocketController({ logger: false });
  same<typeof untyped, WebSocketController>();
  // @ts-expect-error -- no such message
  void controller.broadcast({ type: "nwes" });
}

function withOptions() {
  return createWebSocketController({ contract });
}

export function contracts(): void {
  // @ts-expect-error -- the protocol's own
  defineContract({ requests: { ping: {} } });
  // @ts-expect-error -- the streams' own
  defineContract({ requests: { "stream.credit": {} } });
  // @ts-expect-error -- a name has a character
  defineContract({ requests: { "": {} } });
  // @ts-expect-error -- a name has 64 characters at most
  defineContract({ requests: { a1234567890123456789012345678901234567890123456789012345678901234: {} } });
  defineContract({ requests: { a123456789012345678901234567890123456789012345678901234567890123: {} } });
  // @ts-expect-error -- the protocol sets the type
  defineContract({ requests: { say: { payload: v.object({ type: v.string() }) } } });
  // @ts-expect-error -- the protocol sets the type
  defineContract({ questions: { confirm: { payload: v.object({ type: v.string() }) } } });
  // @ts-expect-error -- the protocol sets the uid
  defineContract({ questions: { confirm: { payload: v.union([Text, v.object({ uid: v.string() })]) } } });
  // @ts-expect-error -- the protocol sets the type
  defineContract({ messages: { news: v.looseObject({ type: v.string() }) } });
  defineContract({ messages: { news: v.record(v.string(), v.string()), other: v.looseObject({ text: v.string() }) } });
  // @ts-expect-error -- the channels' own
  defineContract({ requests: { publish: { payload: Text } }, channels: { wire: {} } });
  defineContract({ requests: { publish: { payload: Text } } }); // There are no channels.
  // @ts-expect-error -- a misspelt field
  defineContract({ requests: { say: { paylaod: Text } } });
  // @ts-expect-error -- a misspelt field beside a right one
  defineContract({ requests: { say: { payload: Text, replay: Text } } });
  // @ts-expect-error -- a schema in the place of `{ payload }`
  defineContract({ requests: { say: Text } });
  // @ts-expect-error -- a payload is an object
  defineContract({ requests: { say: { payload: v.string() } } });
  defineContract({ requests: { say: { payload: v.objectAsync({ text: v.string() }) } } });
  // @ts-expect-error -- no schema
  defineContract({ requests: { say: { payload: { text: v.string() } } } });
  // @ts-expect-error -- a misspelt part
  defineContract({ request: { say: { payload: Text } }, messages: {} });
  // @ts-expect-error -- the protocol's own
  defineContract({ messages: { pong: Text } });
  // @ts-expect-error -- the protocol's own
  defineContract({ questions: { ping: {} } });
  // @ts-expect-error -- a payload is an object
  defineContract({ questions: { confirm: { payload: v.string() } } });
  // @ts-expect-error -- no schema
  defineContract({ questions: { confirm: { reply: { yes: v.boolean() } } } });
  // @ts-expect-error -- a misspelt field
  defineContract({ questions: { confirm: { payload: Text, replay: Text } } });
  // @ts-expect-error -- a schema in the place of `{ payload }`
  defineContract({ questions: { confirm: Text } });
  // @ts-expect-error -- a message is an object
  defineContract({ messages: { news: v.string() } });
  // @ts-expect-error -- no schema
  defineContract({ messages: { news: { text: v.string() } } });
  // @ts-expect-error -- a name has no space
  defineContract({ channels: { "a room": {} } });
  defineContract({ channels: { "room:{id}": {}, "{tenant}": {}, "a:{b}/{c}:*": {} } });
  // @ts-expect-error -- a parameter has a name
  defineContract({ channels: { "room:{}": {} } });
  // @ts-expect-error -- of letters, digits and _
  defineContract({ channels: { "room:{room-id}": {} } });
  // @ts-expect-error -- only at the end
  defineContract({ channels: { "room:*:said": {} } });
  // @ts-expect-error -- parameters have something between them
  defineContract({ channels: { "room:{id}{x}": {} } });
  // @ts-expect-error -- a parameter begins with a letter
  defineContract({ channels: { "{1}": {} } });
  // @ts-expect-error -- parameters have names of their own
  defineContract({ channels: { "{id}:{id}": {} } });
  // @ts-expect-error -- the same names
  defineContract({ channels: { "room:{id}": {}, "room:{room}": {} } });
  // @ts-expect-error -- a name has a character
  defineContract({ channels: { "": {} } });
  defineContract({ channels: { "*": {}, "{a}": {}, "{a}*": {}, "{a}.{b}": {}, "a:{id}": {}, "b:{id}": {}, "{tenant_1}/x": {} } });
  // @ts-expect-error -- a misspelt field
  defineContract({ channels: { wire: { event: { posted: Text } } } });
  // @ts-expect-error -- a name has a character
  defineContract({ channels: { wire: { events: { "": Text } } } });
  // @ts-expect-error -- the protocol's own
  defineContract({ channels: { wire: { events: { init: Text } } } });
  defineContract({ channels: { wire: { events: { posted: v.objectAsync({ text: v.string() }) } } } });
  // @ts-expect-error -- no schema
  defineContract({ channels: { wire: { events: { posted: "text" } } } });
  // @ts-expect-error -- no schema
  defineContract({ channels: { wire: { snapshot: [] } } });
}

interface Node {
  readonly id: string;
  readonly at?: Date;
  readonly children: readonly Node[];
  readonly byName: Readonly<Record<string, Node>>;
  readonly rest: unknown;
}

interface Account extends Node {
  readonly owner: { readonly balance: { readonly of: readonly [string, { readonly cents: bigint | null }] } };
}

export class Clock {
  now(): number {
    return 0;
  }
}

/** The input of a schema is JSON, or becomes JSON. Its output need not be. */
export function sent(): void {
  const Cents = v.pipe(v.string(), v.transform((text) => BigInt(text)));
  const Bytes = v.instance(Uint8Array);
  defineContract({
    requests: {
      pay: { payload: v.object({ cents: Cents }), reply: v.object({ at: v.date(), rest: v.unknown(), any: v.any() }) },
      count: { stream: { input: Cents, output: v.nullish(v.string()) } },
    },
    questions: { price: { payload: v.object({ at: v.optional(v.date()) }), reply: Cents } },
    messages: { news: v.looseObject({ url: v.instance(URL) }) },
    channels: {
      wire: {
        events: { posted: v.object({ id: v.pipe(v.string(), v.brand("Id")), at: v.pipe(v.date(), v.readonly()) }) },
        snapshot: v.custom<Node>(() => true),
        query: v.record(v.string(), v.string()),
        member: v.undefined(),
      },
    },
  });
  // @ts-expect-error -- a bigint
  defineContract({ requests: { pay: { payload: v.object({ cents: v.optional(v.bigint()) }) } } });
  // @ts-expect-error -- a bigint, which the schema of a reply would not replace
  defineContract({ requests: { pay: { reply: v.pipe(v.bigint(), v.transform(String)) } } });
  // @ts-expect-error -- a bigint among others
  defineContract({ requests: { pay: { reply: v.array(v.union([v.string(), v.bigint()])) } } });
  // @ts-expect-error -- a bigint in an item
  defineContract({ requests: { pay: { stream: { output: v.bigint() } } } });
  // @ts-expect-error -- a bigint in an item of the input
  defineContract({ requests: { pay: { stream: { input: v.object({ cents: v.bigint() }), output: v.string() } } } });
  // @ts-expect-error -- a function
  defineContract({ questions: { price: { payload: v.object({ done: v.function() }) } } });
  // @ts-expect-error -- a bigint
  defineContract({ questions: { price: { reply: v.bigint() } } });
  // @ts-expect-error -- a symbol
  defineContract({ messages: { news: v.object({ kind: v.symbol() }) } });
  // @ts-expect-error -- a method
  defineContract({ messages: { news: v.object({ clock: v.instance(Clock) }) } });
  // @ts-expect-error -- a Map
  defineContract({ channels: { wire: { events: { posted: v.map(v.string(), v.string()) } } } });
  // @ts-expect-error -- the server publishes a bigint, the output
  defineContract({ channels: { wire: { events: { posted: Cents } } } });
  // @ts-expect-error -- a bigint, below types that refer to themselves
  defineContract({ channels: { wire: { snapshot: v.custom<Account>(() => true) } } });
  // @ts-expect-error -- a Set
  defineContract({ channels: { wire: { member: v.object({ rights: v.set(v.string()) }) } } });
  // @ts-expect-error -- bytes
  defineContract({ channels: { wire: { query: v.object({ after: Bytes }) } } });
}

/** The longest prefix wins, as at run time. */
export function prefixes(): void {
  const contract = defineContract({
    channels: {
      "room:*": { events: { said: Text } },
      "room:vip:*": { events: { greeted: v.object({ n: v.number() }) } },
      "room:vip:{id}:*": { events: { left: v.null() } },
    },
  });
  const channels = new Channels(new WebSocketController({ contract }), {
    "room:*": room,
    "room:vip:*": room,
    "room:vip:{id}:*": room,
  });
  const client = createClient<typeof contract>("ws://localhost");
  client.subscribe("room:vip:1", { onEvent: ({ data }) => same<typeof data, { n: number }>() });
  client.subscribe("room:1", { onEvent: ({ data }) => same<typeof data, { text: string }>() });
  client.subscribe("room:vip:1:2", { onEvent: ({ data }) => same<typeof data, null>() });
  void channels.publish("room:vip:1", "greeted", { n: 1 });
  // @ts-expect-error -- an event of a shorter prefix
  void channels.publish("room:vip:1", "said", { text: "Hello" });
  // @ts-expect-error -- an event of a shorter prefix
  void client.publish("room:vip:1", "said", { text: "Hello" });
}

export function client(): void {
  const client = createClient<typeof contract>("ws://localhost");
  client.subscribe("tenant:acme:board:1", { onEvent: ({ data }) => same<typeof data, { x: number }>() });
  void client.publish("tenant:acme:board:1", "moved", { x: 1 });
  // @ts-expect-error -- an event of another channel
  void client.publish("tenant:acme:board:1", "logged", { text: "Hello" });
  // @ts-expect-error -- no such channel
  client.subscribe("board:1");
  client.handle("confirm", ({ text }) => {
    same<typeof text, string>();
    return { yes: true, amount: "1" };
  });
  client.handle("ready?", () => Promise.resolve(7));
  client.handle("anything", ({ text }) => text);
  // @ts-expect-error -- no such question
  client.handle("cofirm", () => ({ yes: true, amount: "1" }));
  // @ts-expect-error -- the contract says a boolean
  client.handle("confirm", () => ({ yes: "yes", amount: "1" }));
  // @ts-expect-error -- the contract says a boolean, and this one comes later
  client.handle("confirm", () => Promise.resolve({ yes: "yes", amount: "1" }));
  // @ts-expect-error -- no such field
  client.handle("confirm", ({ title }) => ({ yes: title === "", amount: "1" }));
  createClient("ws://localhost").handle("anything", ({ text }) => same<typeof text, unknown>());
  client.on("error", ({ error }) => {
    same<typeof error, Error>();
    return error.message;
  });
}
