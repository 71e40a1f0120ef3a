/**
 * The types of what arrives as JSON, for the compiler only: each `@ts-expect-error` stands over a misuse. Compiled as contract.ts.
 */
import * as v from "valibot";
import { defineContract, type JsonItemOf, type JsonOf, WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { createClient, type PayloadOf, type ReplyOf, type RequestType, type WithoutEnvelope } from "../../src/client/client.ts";
import { streams } from "../../src/client/streams.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(
  ..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? []
    : [never]
): void {}

type Json = string | number | boolean | null | readonly Json[] | {
  readonly [name: string]: Json;
};
type Shape = { kind: "circle"; radius: number } | {
  kind: "label";
  text: string;
};

interface Tree {
  name: string;
  children: Tree[];
  parent?: Tree | undefined;
  byName: Record<string, Tree>;
}

interface Everything {
  readonly id: string;
  tags: readonly string[];
  pair: [number, string?];
  level: "low" | "high" | null;
  // deno-lint-ignore no-explicit-any
  any: any;
  unknown: unknown;
  object: object;
  optional?: number | undefined;
  never?: never;
}

declare const brand: unique symbol;

/** A class without methods is JSON. */
export class Point {
  x = 0;
  y = 0;
}

/** What is JSON stays the same type. */
export function unchanged(): void {
  same<JsonOf<Tree>, Tree>();
  same<JsonOf<Json>, Json>();
  same<JsonOf<Shape>, Shape>();
  same<JsonOf<Shape[]>, Shape[]>();
  same<JsonOf<Everything>, Everything>();
  same<JsonOf<Point>, Point>();
  same<JsonOf<unknown>, unknown>();
  same<JsonOf<never>, never>();
  same<JsonOf<undefined>, undefined>();
  same<JsonOf<void>, void>();
  same<JsonOf<object>, object>();
  same<JsonOf<string | undefined>, string | undefined>();
  same<JsonOf<`room:${string}`>, `room:${string}`>();
  same<
    JsonOf<readonly [string, ...number[]]>,
    readonly [string, ...number[]]
  >();
  same<JsonOf<Record<string, never>>, Record<string, never>>();
  same<
    JsonOf<Record<string, string | undefined>>,
    Record<string, string | undefined>
  >();
  same<
    JsonOf<{ type: "news" } & { text: string }>,
    { type: "news" } & { text: string }
  >();
  same<JsonOf<string & { [brand]: true }>, string & { [brand]: true }>();
  same<
    JsonOf<{ id: string } & { [brand]: true }>,
    { id: string } & { [brand]: true }
  >();
  const Nested = v.object({
    a: v.optional(v.string()),
    b: v.array(v.nullable(v.number())),
    c: v.looseObject({ d: v.string() }),
  });
  same<JsonOf<v.InferOutput<typeof Nested>>, v.InferOutput<typeof Nested>>();
}

export class Money {
  amount = 0;
  toJSON(): { amount: number; at: Date } {
    return { amount: this.amount, at: new Date() };
  }
}

export class Counter {
  count = 0;
  increment(): void {
    this.count++;
  }
}

interface Dated {
  readonly at?: Date;
  list: Date[];
  fixed: readonly [Date, ...Date[]];
  children: Dated[];
  tree: Tree;
  shape: Shape;
  unknown: unknown;
}

type In<T> = { in: T };
type Levels<T> = In<In<In<In<In<In<In<In<In<In<In<In<T[]>>>>>>>>>>>>;

interface Growing<T> {
  value: T;
  next?: Growing<T[]>;
}

/** Each is assignable to one that refers to it. */
interface Person {
  name: string;
  friend?: Friend;
}
interface Friend extends Person {
  since: { at: Date };
}

interface Left {
  right: Right;
  both: Both;
}
interface Right {
  left: Left;
  both: Both[];
}
interface Both {
  left: Left | null;
  right: { a: { b: { c: { d: { e: { f: { g: { h: Date } } } } } } } };
}

/** However deep the change is, and whatever refers to itself before. */
export function deep(
  growing: JsonOf<Growing<Date>>,
  person: JsonOf<Person>,
  left: JsonOf<Left>,
): void {
  same<JsonOf<Levels<number>>, Levels<number>>();
  same<JsonOf<Levels<Date>>, Levels<string>>();
  same<JsonOf<Growing<number>>, Growing<number>>();
  const next = growing.next?.next?.value;
  same<typeof next, string[][] | undefined>();
  const at = person.friend?.since.at;
  same<typeof at, string | undefined>();
  const h = left.right.left.both.right.a.b.c.d.e.f.g.h;
  same<typeof h, string>();
  // What nothing is known of, or what any object is assignable to, hides no other part.
  same<
    JsonOf<{ a: { b: unknown }; c: { d: { e: Date } } }>,
    { a: { b: unknown }; c: { d: { e: string } } }
  >();
  same<
    JsonOf<{ a: object; b: { c: { d: Date } } }>,
    { a: object; b: { c: { d: string } } }
  >();
}

/** What is not JSON is what `JSON.stringify` makes of it. */
export function changed(dated: JsonOf<Dated>): void {
  same<JsonOf<Date | null | undefined>, string | null | undefined>();
  same<
    JsonOf<{ readonly at?: Date; text: string }>,
    { readonly at?: string; text: string }
  >();
  same<
    JsonOf<Shape | { kind: "date"; at: Date }>,
    Shape | { kind: "date"; at: string }
  >();
  same<JsonOf<Record<string, Date>>, Record<string, string>>();
  same<JsonOf<readonly Date[]>, readonly string[]>();
  same<JsonOf<Money>, { amount: number; at: string }>();
  same<
    JsonOf<{ map: Map<string, number>; set: ReadonlySet<string> }>,
    { map: Record<never, never>; set: Record<never, never> }
  >();
  same<JsonOf<Uint8Array>, Record<string, number>>();
  // Methods are left out, and what may be undefined may be absent.
  same<JsonOf<Counter>, { count: number }>();
  same<
    JsonOf<{ a: string | undefined; b: number }>,
    { a?: string; b: number }
  >();
  same<
    JsonOf<
      { a: string | (() => void); b?: () => void; c: symbol; [brand]: Date }
    >,
    { a?: string }
  >();
  same<JsonOf<(string | undefined)[]>, (string | null)[]>();
  same<JsonOf<[symbol, () => void, Date]>, [null, null, string]>();
  same<JsonOf<() => void>, undefined>();
  same<JsonItemOf<Date | undefined>, string | null>();
  same<JsonOf<bigint>, never>();
  same<JsonOf<{ count: bigint }>, { count: never }>();
  const Deep = v.object({
    a: v.object({
      b: v.object({ c: v.object({ d: v.object({ at: v.date() }) }) }),
    }),
  });
  same<
    JsonOf<v.InferOutput<typeof Deep>>,
    { a: { b: { c: { d: { at: string } } } } }
  >();
  // A recursive type, and what of it is JSON.
  for (const child of dated.children) {
    same<typeof child.children, JsonOf<Dated>[]>();
  }
  same<typeof dated.fixed, readonly [string, ...string[]]>();
  same<
    [typeof dated.tree, typeof dated.shape, typeof dated.unknown],
    [Tree, Shape, unknown]
  >();
}

const At = v.object({ at: v.date() });
const contract = defineContract({
  requests: { now: { reply: At, stream: { output: v.date() } } },
  questions: {
    when: {
      payload: At,
      reply: v.object({
        at: v.pipe(
          v.string(),
          v.transform((text) => new Date(text)),
        ),
      }),
    },
  },
  messages: { tick: At, news: v.object({ text: v.string() }) },
  channels: {
    clock: {
      events: {
        struck: v.pipe(v.string(), v.transform((text) => new Date(text))),
        stopped: v.optional(v.number()),
      },
      snapshot: At,
      member: v.object({ since: v.date() }),
    },
  },
});
const controller = new WebSocketController({ contract });
const channels = new Channels(controller, {
  clock: {
    authorize: () => true,
    history: { size: 10, ttl: 60_000 },
    snapshot: async ({ history }) => {
      for (const { event, data } of (await history()).publications) {
        if (event === "struck") same<typeof data, string>();
        else same<typeof data, number | null>();
      }
      return { at: new Date() };
    },
    presence: { data: () => ({ since: new Date() }) },
  },
});

/** The server sends dates. */
export async function server(): Promise<void> {
  controller.handle("now", contract.requests.now, async function* () {
    yield new Date();
    return { at: new Date() };
  });
  void controller.broadcast({ type: "tick", at: new Date() });
  await channels.publish("clock", "struck", new Date());
  const [client] = controller.clients();
  const answer = await client!.ask("when", { at: new Date() });
  same<typeof answer, { at: Date }>(); // Its schema has parsed it.
  for (
    const { event, data } of (await channels.history("clock")).publications
  ) {
    if (event === "struck") same<typeof data, string>();
  }
}

/** Items of a stream are merged from their history. */
export function merging(): void {
  const answer = async function* () {
    yield new Date();
    return { at: new Date() };
  };
  controller.handle("now", contract.requests.now, answer, {
    resumable: {
      merge: (items) => {
        same<typeof items, string[]>();
        return items.slice(-1);
      },
    },
  });
  controller.handle("now", contract.requests.now, answer, {
    // @ts-expect-error -- a string, as the client receives it
    resumable: { merge: () => [new Date()] },
  });
}

/** The client receives strings. */
export async function client(): Promise<void> {
  const client = createClient<typeof contract>("ws://localhost", { streams });
  const reply = await client.request("now");
  same<typeof reply, { at: string }>();
  // @ts-expect-error -- it is a string
  reply.at.getTime();
  const stream = client.stream("now");
  for await (const item of stream) same<typeof item, string>();
  same<Awaited<typeof stream.result>, { at: string }>();
  client.on("message", ({ message }) => {
    if (message.type === "tick") same<typeof message.at, string>();
    else same<typeof message, { type: "news" } & { text: string }>();
  });
  client.handle("when", ({ at }) => {
    same<typeof at, string>();
    return { at };
  });
  const subscription = client.subscribe("clock", {
    data: { since: new Date() },
    onInit: ({ data }) => same<typeof data.at, string>(),
    onEvent: ({ event, data }) => {
      if (event === "struck") same<typeof data, string>();
      else same<typeof data, number | null>();
    },
    onPresence: ({ members: [member] }) => same<NonNullable<typeof member>["data"], { since: string } | undefined>(),
  });
  for await (const item of subscription) {
    if (item.event === "struck") same<typeof item.data, string>();
  }
}

/** Without a schema an answer arrives as it was sent. */
export async function plainTypes(): Promise<void> {
  const plain = new WebSocketController<
    { questions: { when: { reply: { at: Date } } } }
  >();
  const [client] = plain.clients();
  const answer = await client!.ask("when");
  same<typeof answer, { at: string }>();
}

const asked = defineContract({
  requests: { say: { payload: v.object({ text: v.string() }), reply: At } },
});

/** A function that takes any type of request names what arrives. */
export function generic<Type extends RequestType<typeof asked>>(
  type: Type,
  payload: WithoutEnvelope<PayloadOf<typeof asked, Type>>,
): Promise<ReplyOf<typeof asked, Type>> {
  return createClient<typeof asked>("ws://localhost").request(type, payload);
}
