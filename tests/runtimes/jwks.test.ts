/** `src/application/jwks.ts` on workerd, where a fetch belongs to the request or object that began it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { startWorker, type Worker } from "../../scripts/worker.ts";
import { createKey } from "../support/jwt-keys.ts";
import { until } from "../support/waiting.ts";

const FIXTURE = join(dirname(fileURLToPath(import.meta.url)), "fixture/jwks-worker.ts");

describe("RemoteKeys on workerd", () => {
  const key = createKey("ES256", "es");
  const server = createServer();
  let worker: Worker;
  let answers: ServerResponse[];

  beforeEach(async () => {
    answers = [];
    server.removeAllListeners("request").on("request", (_request, response) => void answers.push(response));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    worker = await startWorker(FIXTURE, "Verifier");
  });

  afterEach(async () => {
    await worker.miniflare.dispose();
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });

  const get = async (path: string, query: Record<string, string> = {}) => {
    const response = await fetch(`http://127.0.0.1:${worker.port}${path}?${new URLSearchParams(query)}`);
    return response.ok ? await response.json() as unknown : `status ${response.status}`;
  };

  /** Verifies a token in the Worker itself, or in one of its objects. */
  async function verify(user: string, object: string | null, signingKey = key): Promise<unknown> {
    const uri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const token = await (await signingKey).signToken({ sub: user, exp: Date.now() / 1000 + 600 });
    return await get("/", { uri, token, ...(object === null ? {} : { object }) });
  }

  async function asked(times: number): Promise<void> {
    while (answers.length < times) await once(server, "request");
  }

  async function begun(count: number): Promise<void> {
    let last: unknown;
    await until(async () => (last = await get("/begun")) === count, () => ({ begun: last }));
  }

  const answer = async (response: ServerResponse) => response.end(JSON.stringify({ keys: [(await key).publicJwk] }));

  for (
    const [name, objects] of Object.entries({ "the Worker": [null, null], "two objects": ["a", "b"], "one object": ["a", "a"] })
  ) {
    it(`shares one fetch between two requests with no key yet, in ${name}`, async () => {
      const first = verify("ann", objects[0]!);
      await asked(1);
      const second = verify("bob", objects[1]!);
      await begun(2);
      await answer(answers[0]!);
      assert.deepEqual([await first, await second, answers.length], ["ann", "bob", 1]);
      assert.deepEqual([await verify("cleo", objects[1]!), answers.length], ["cleo", 1]);
    });
  }

  it("verifies by each default algorithm", async () => {
    const keys = (["ES256", "RS256", "EdDSA"] as const).map((alg) => createKey(alg, alg));
    // Created first, because a busy machine takes longer for an RS256 key than the fetch of the keys may take.
    await Promise.all(keys);
    const first = verify("ann", null, keys[0]);
    await asked(1);
    answers[0]!.end(JSON.stringify({ keys: (await Promise.all(keys)).map(({ publicJwk }) => publicJwk) }));
    assert.equal(await first, "ann");
    for (const signingKey of keys) assert.equal(await verify("bob", null, signingKey), "bob");
    // A different key with the same kid.
    assert.equal(await verify("eve", null, createKey("RS256", "RS256")), null);
    assert.equal(answers.length, 1);
  });

  const refused: Record<string, (response: ServerResponse) => void> = {
    "redirects": (response) => response.writeHead(302, { location: "/other" }).end(),
    "has more than 1 MiB": (response) => response.end(" ".repeat(1_048_577)),
  };
  for (const [name, refuse] of Object.entries(refused)) {
    it(`does not use an answer that ${name}`, async () => {
      const first = verify("ann", null);
      await asked(1);
      refuse(answers[0]!);
      assert.deepEqual([await first, answers.length], ["status 500", 1]);
    });
  }

  it("fetches again when the object that began the fetch is gone, and answers all waiting requests", async () => {
    const first = verify("ann", "a");
    await asked(1);
    const gone = once(answers[0]!, "close");
    const others = [verify("bob", "b"), verify("cleo", "b"), verify("dan", "c"), verify("eve", null)];
    await begun(5);
    await get("/abort", { object: "a" });
    await gone;
    assert.equal(await first, "status 500");
    await asked(2);
    await answer(answers[1]!);
    assert.deepEqual([await Promise.all(others), answers.length], [["bob", "cleo", "dan", "eve"], 2]);
  });
});
