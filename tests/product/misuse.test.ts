/** What the compiler says of a misuse: the oldest TypeScript that the types support, and the newest. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const modules = join(root, "node_modules");

/** What the declarations of the package import. */
const DEPENDENCIES = ["@types", "hono", "mitt", "undici-types", "valibot"];

/** TypeScript before 5.8 does not let a CommonJS file require an ES module. */
const COMPILERS = [
  { name: "TypeScript 5.4", path: "typescript-5.4/bin/tsc", modules: ["ts"] },
  { name: "the newest TypeScript", path: "typescript/bin/tsc", modules: ["ts", "cts"] },
];

/** Files of tests/types that are compiled against the declarations of the package. */
const SUITES = ["contract", "json-of", "channel-names", "schedules", "stub"];

/** Limit of a compilation, in ms: a busy machine takes many times the seconds of a free one. */
const TIMEOUT = 300_000;

const PRELUDE = `
import * as v from "valibot";
import { defineContract, WebSocketController, WebSocketService } from "noroshi";
import { Channels } from "noroshi/channels";
import { createClient } from "noroshi/client";
const Text = v.object({ text: v.string() });
const contract = defineContract({
  requests: { say: { payload: Text, reply: v.object({ id: v.number() }) } },
  messages: { news: Text },
  channels: { "room:*": { events: { said: Text }, snapshot: v.array(v.string()) }, wire: {} },
});
const controller = new WebSocketController<typeof contract>();
const service = new WebSocketService(controller);
const authorize = () => true;
const channels = new Channels(controller, { "room:*": { authorize }, wire: { authorize } });
const open = new Channels(new WebSocketController(), { "room:*": { authorize, schema: { said: Text } }, wire: { authorize } });
const client = createClient<typeof contract>("ws://localhost");
export { channels, client, open, service, Text };
`;

/** Each snippet has one error, which matches. */
const MISUSES: Record<string, [snippet: string, error: RegExp]> = {
  "a broadcast with a field of another type": [
    'service.broadcast({ type: "news", text: 1 });',
    /^Type 'number' is not assignable to type 'string'\.$/,
  ],
  "a broadcast of a misspelt message": [
    'service.broadcast({ type: "nwes", text: "Hello" });',
    /^Type '"nwes"' is not assignable to type '"news"'\.$/,
  ],
  "a broadcast without a field": [
    'service.broadcast({ type: "news" });',
    /Property 'text' is missing in type '\{ type: "news"; \}' but required in type '\{ text: string; \}'\.$/,
  ],
  "a handler of a misspelt request": [
    'controller.handle("sya", contract.requests.say, () => ({ id: 1 }));',
    /^Argument of type '"sya"' is not assignable to parameter of type '"say"'\.$/,
  ],
  "a handler that returns another reply": [
    'controller.handle("say", contract.requests.say, () => ({ id: "1" }));',
    /^Type 'string' is not assignable to type 'number'\.$/,
  ],
  "a misspelt option of a channel": [
    "new Channels(new WebSocketController(), { wire: { authorize, histroy: { size: 1, ttl: 1_000 } } });",
    /^Object literal may only specify known properties, but 'histroy' does not exist in type 'ChannelOptions<.*>'\. Did you mean to write 'history'\?$/,
  ],
  "a misspelt option of a channel of the contract": [
    'new Channels(controller, { "room:*": { authorize }, wire: { authorize, histroy: { size: 1, ttl: 1_000 } } });',
    /'histroy' does not exist in type 'ChannelOptions<"wire", \{\}.*>'\. Did you mean to write 'history'\?$/,
  ],
  "a snapshot of another type": [
    'new Channels(controller, { "room:*": { authorize, snapshot: () => 42 }, wire: { authorize } });',
    /\n *Type 'number' is not assignable to type 'string\[\] \| Promise<string\[\]>'\.$/,
  ],
  "a channel of the contract that is not declared": [
    'new Channels(controller, { "room:*": { authorize } });',
    /Property 'wire' is missing in type '\{ "room:\*": \{ authorize: \(\) => boolean; \}; \}'/,
  ],
  "an event in a variable that the contract does not have": [
    `const schema = { said: Text, evil: Text };
    new Channels(controller, { "room:*": { authorize, schema }, wire: { authorize } });`,
    /'"Cannot declare the event \\"evil\\": the contract does not have it"'\.$/,
  ],
  "a channel in a variable that the contract does not have": [
    `const declarations = { "room:*": { authorize }, wire: { authorize }, wrie: { authorize } };
    new Channels(controller, declarations);`,
    /'"Cannot declare the channel \\"wrie\\": the contract does not have it"'\.$/,
  ],
  "a publication to a misspelt channel": [
    'open.publish("romo:1", "said", { text: "Hello" });',
    /^Argument of type '"romo:1"' is not assignable to parameter of type '(?:"wire" \| `room:\$\{string\}`|`room:\$\{string\}` \| "wire")'\.$/,
  ],
  "a publication to a misspelt channel of the contract": [
    'channels.publish("romo:1", "said", { text: "Hello" });',
    /^Argument of type '"romo:1"' is not assignable to parameter of type '(?:"wire" \| `room:\$\{string\}`|`room:\$\{string\}` \| "wire")'\.$/,
  ],
  "a publication of a misspelt event": [
    'channels.publish("room:1", "siad", { text: "Hello" });',
    /^Argument of type '"siad"' is not assignable to parameter of type '"said"'\.$/,
  ],
  "a publication of other data": [
    'channels.publish("room:1", "said", { text: 1 });',
    /^Type 'number' is not assignable to type 'string'\.$/,
  ],
  "a channel name in authorize that is never passed": [
    'new Channels(controller, { "room:*": { authorize: ({ channel }) => channel === "wire" }, wire: { authorize } });',
    /^This comparison appears to be unintentional because the types '`room:\$\{string\}`' and '"wire"' have no overlap\.$/,
  ],
  "a parameter that a channel name does not have": [
    `const rooms = new WebSocketController<{ channels: { "room:{id}": {} } }>();
    new Channels(rooms, { "room:{id}": { authorize: ({ params }) => params.di === "1" } });`,
    /^Property 'di' does not exist on type 'ParamsOf<"room:\{id\}">'\.(?: Did you mean 'id'\?)?$/,
  ],
  "a misspelt message to one client": [
    'for (const client of service.clients()) client.send({ type: "nwes", text: "Hello" });',
    /^Object literal may only specify known properties, and 'text' does not exist in type 'ErrorMessage'\.$/,
  ],
  "a misspelt request in a listener": [
    'service.on("message", ({ message }) => message.type === "sya");',
    /^This comparison appears to be unintentional because the types '.*"say".*' and '"sya"' have no overlap\.$/,
  ],
  "a field in a listener as if it were validated": [
    'service.on("message", ({ message }) => message.type === "say" && message.text.trim());',
    /^'message\.text' is of type 'unknown'\.$/,
  ],
  "an event in authorize that the contract does not have": [
    'new Channels(controller, { "room:*": { authorize: ({ event }) => event === "siad" }, wire: { authorize } });',
    /^This comparison appears to be unintentional because the types '"said"(?: \| undefined)?' and '"siad"' have no overlap\.$/,
  ],
  "an error of the client as something else": [
    'client.on("error", ({ error }) => error satisfies string);',
    /^Type 'Error' does not satisfy the expected type 'string'\.$/,
  ],
  "a contract with a request of the protocol": [
    "defineContract({ requests: { ping: {} } });",
    /'"Cannot declare the request \\"ping\\": the protocol uses this name, choose another"'\.$/,
  ],
  "a contract with a request of the channels": [
    "defineContract({ requests: { publish: { payload: Text } }, channels: { wire: {} } });",
    /'"Cannot declare the request \\"publish\\": the protocol uses this name, choose another"'\.$/,
  ],
  "a contract with a misspelt field": [
    "defineContract({ requests: { say: { payload: Text, replay: Text } } });",
    /'"Cannot declare \\"say\\": a request has payload, reply and stream, not \\"replay\\""'\.$|Did you mean to write 'reply'\?$/,
  ],
  "a contract with a misspelt part": [
    "defineContract({ request: { say: { payload: Text } } });",
    /'request' does not exist in type 'Contract'\. Did you mean to write 'requests'\?$/,
  ],
  "a contract with a payload that is no object": [
    "defineContract({ requests: { say: { payload: v.string() } } });",
    /'"Cannot declare \\"say\\": payload must be a schema of an object, such as v\.object\(\{ … \}\)"'\.$/,
  ],
  "a contract with a message that is no object": [
    "defineContract({ messages: { news: v.string() } });",
    /'"Cannot declare \\"news\\": a message must be an object, such as v\.object\(\{ … \}\)"'\.$/,
  ],
  "a contract with a channel name that no client can subscribe to": [
    'defineContract({ channels: { "the room": {} } });',
    /'"Cannot declare the channel \\"the room\\": use A–Z a–z 0–9 _ - \. : \/ @ = \+ ~, \{name\} for a parameter, and \* at the end for a prefix"'\.$/,
  ],
  "a contract with a bigint": [
    "defineContract({ requests: { pay: { reply: v.object({ items: v.array(v.object({ cents: v.bigint() })) }) } } });",
    /'"Cannot declare \\"pay\\": the bigint at \\"reply\.items\[\]\.cents\\" is not JSON, use a string"'\.$/,
  ],
  "a contract with a function": [
    "defineContract({ channels: { wire: { events: { posted: v.object({ done: v.optional(v.function()) }) } } } });",
    /'"Cannot declare the event \\"posted\\": the function at \\"data\.done\\" is not JSON, remove it"'\.$/,
  ],
  "a contract with a Map": [
    "defineContract({ messages: { news: v.object({ all: v.map(v.string(), v.string()) }) } });",
    /'"Cannot declare \\"news\\": the Map at \\"message\.all\\" is not JSON, use an array"'\.$/,
  ],
  "a contract with an event of the protocol": [
    "defineContract({ channels: { wire: { events: { init: Text } } } });",
    /'"Cannot declare the event \\"init\\": the protocol uses this name, choose another"'\.$/,
  ],
};

describe("The declarations of the package", () => {
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-misuse-"));
    const own = join(folder, "node_modules/noroshi");
    await mkdir(own, { recursive: true });
    await copyFile(join(root, "package.json"), join(own, "package.json"));
    for (const name of DEPENDENCIES) await symlink(join(modules, name), join(folder, "node_modules", name), "junction");
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    const emit = ["--emitDeclarationOnly", "--declarationMap", "false", "--outDir", join(own, "dist")];
    const emitted = await compile("typescript/bin/tsc", root, "-p", "tsconfig.build.json", ...emit);
    assert.equal(emitted, "");
    // The suites are in the terms of the source, which the checks compile too.
    for (const name of SUITES) {
      const suite = (await readFile(join(root, `tests/types/${name}.ts`), "utf8"))
        .replace('"../../mod.ts"', '"noroshi"')
        .replace('"../../src/channels/channels.ts"', '"noroshi/channels"')
        .replace('"../../src/client/client.ts"', '"noroshi/client"')
        .replace('"../../src/client/react.ts"', '"noroshi/react"')
        .replace('"../../src/client/streams.ts"', '"noroshi/client/streams"')
        .replace('"../../src/publisher/publisher.ts"', '"noroshi/publisher"')
        .replace('"../../src/serve/cloudflare.ts"', '"noroshi/cloudflare"')
        .replace('"../../src/serve/schedules.ts"', '"noroshi/schedules"');
      for (const extension of ["ts", "cts"]) await writeFile(join(folder, `${name}.${extension}`), suite);
    }
  }, { timeout: TIMEOUT });
  after(() => rm(folder, { recursive: true, force: true }));

  async function check(compiler: string, files: string[], compilerOptions: Record<string, unknown> = {}): Promise<string> {
    const common = { target: "es2022", lib: ["es2022", "dom"], module: "nodenext", strict: true, noEmit: true, types: [] };
    const config = { compilerOptions: { ...common, skipLibCheck: true, ...compilerOptions }, files };
    await writeFile(join(folder, "tsconfig.json"), JSON.stringify(config));
    return await compile(compiler, folder, "-p", "tsconfig.json", "--pretty", "false");
  }

  for (const { name, path, modules } of COMPILERS) {
    it(`refuse each misuse, say why, and refuse nothing else, with ${name}`, { timeout: TIMEOUT }, async () => {
      const titles = Object.keys(MISUSES);
      const files = titles.map((_, index) => `misuse-${index}.ts`);
      for (const [index, title] of titles.entries()) await writeFile(join(folder, files[index]!), PRELUDE + MISUSES[title]![0]);
      const suite = SUITES.flatMap((name) => modules.map((extension) => `${name}.${extension}`));
      const output = await check(path, [...suite, ...files], { exactOptionalPropertyTypes: true });
      // A message goes on in lines that begin with a space.
      const errors = output.trimEnd().split(/\n(?! )/);
      for (const [index, title] of titles.entries()) {
        const own = errors.filter((error) => error.startsWith(`${files[index]}(`));
        assert.equal(own.length, 1, `${title}: ${own.join("\n")}`);
        assert.match(own[0]!.replace(/^.*?: error TS\d+: /, ""), MISUSES[title]![1], title);
      }
      assert.equal(errors.length, titles.length, output); // None in the suite.
    });
  }

  // The declarations themselves are checked without it in tests/product/package.test.ts.
  it("need no DOM library where they are used: that of a runtime is enough", { timeout: TIMEOUT }, async () => {
    const options = { lib: ["es2023"], types: ["node"], exactOptionalPropertyTypes: true };
    assert.equal(await check("typescript/bin/tsc", ["contract.ts"], options), "");
  });
});

/** Resolves with what the compiler prints. */
function compile(compiler: string, cwd: string, ...args: string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(modules, compiler), ...args], { cwd }, (_error, stdout, stderr) => resolve(stdout + stderr));
  });
}
