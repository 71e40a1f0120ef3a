/** Calls of an object by its stub, for the compiler only: each `@ts-expect-error` stands over a misuse. Compiled as contract.ts. */
import { Hono } from "hono";
import * as v from "valibot";
import { defineContract, WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { createWebSocketObject, typeStub } from "../../src/serve/cloudflare.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? [] : [never]): void {}

const At = v.object({ at: v.date() });
const contract = defineContract({
  messages: { news: v.object({ text: v.string() }) },
  channels: {
    "room:{id}": { events: { said: v.object({ text: v.string() }) }, member: v.object({ name: v.string() }) },
    "x:{a}": { events: { x: At }, member: At },
    "{b}:y": { events: { y: At } },
    wire: { events: { posted: At } },
  },
});

export class Newsroom extends createWebSocketObject(() => {
  const controller = new WebSocketController({ contract });
  const room = { authorize: () => true };
  const channels = new Channels(controller, { "room:{id}": room, "x:{a}": room, "{b}:y": room, wire: room });
  return { app: new Hono().get("/websocket", controller.upgrade), controller, channels };
}) {
  greet(name: string): Promise<string> {
    return Promise.resolve(`Hello ${name}`);
  }
}

/** What workerd makes of a method: its type parameters are lost. */
type Method<M> = M extends (...args: infer Args) => Promise<infer Result> ? (...args: Args) => Promise<Result> : never;
type Stub<T> = { readonly [Name in keyof T]: Method<T[Name]> } & { readonly id: string };

export async function calls(stub: Stub<Newsroom>, id: string): Promise<void> {
  const newsroom = typeStub(contract, stub);
  await newsroom.publish("room:1", "said", { text: "" });
  await newsroom.publish(`room:${id}`, "said", { text: "" }, { id });
  await newsroom.publish("wire", "posted", { at: new Date() });
  await newsroom.broadcast({ type: "news", text: "" });
  same<typeof newsroom.id, string>();
  same<Awaited<ReturnType<typeof newsroom.greet>>, string>();
  const members = await newsroom.presence("room:1");
  same<(typeof members)[number]["data"], { name: string } | undefined>();
  const [member] = await newsroom.presence("x:1");
  same<NonNullable<typeof member>["data"], { at: string } | undefined>();
  const { publications } = await newsroom.history("wire", { limit: 1 });
  same<(typeof publications)[number]["event"], "posted">();
  same<(typeof publications)[number]["data"], { at: string }>();
  // @ts-expect-error -- a parameter takes no ":"
  await newsroom.publish("room:1:2", "said", { text: "" });
  // @ts-expect-error -- whatever the id
  await newsroom.publish(`room:${id}:2`, "said", { text: "" });
  // @ts-expect-error -- two declarations are equally specific
  await newsroom.publish("x:y", "x", { at: new Date() });
  // @ts-expect-error -- an event of another channel
  await newsroom.publish("wire", "said", { text: "" });
  // @ts-expect-error -- the contract says a string
  await newsroom.publish("room:1", "said", { text: 1 });
  // @ts-expect-error -- a transaction is not of another process
  await newsroom.publish("room:1", "said", { text: "" }, { transaction: {} });
  // @ts-expect-error -- no such channel
  await newsroom.presence("room:");
  // @ts-expect-error -- no such channel
  await newsroom.history("romo:1");
  // @ts-expect-error -- no such message
  await newsroom.broadcast({ type: "nwes", text: "" });
  // @ts-expect-error -- the contract of another object
  typeStub(defineContract({ channels: { other: { events: { said: v.string() } } } }), stub);
}

/** The methods of the class itself. */
export async function own(newsroom: Newsroom): Promise<void> {
  await typeStub(contract, newsroom).publish("room:1", "said", { text: "" });
  // @ts-expect-error -- no such channel
  await typeStub(contract, newsroom).publish("room:1:2", "said", { text: "" });
}
