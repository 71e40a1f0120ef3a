import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { Wire } from "../wire.ts";

const DRAINED = { code: 1012, reason: "drained" };

/** Asks a probe of a subject. */
async function probe({ port }: TestServer, subject: string, kind: "live" | "ready"): Promise<[status: number, text: unknown]> {
  const response = await fetch(`http://127.0.0.1:${port}/probe/${subject}/${kind}`, { headers: { connection: "close" } });
  return [response.status, (await response.json() as { status: unknown }).status];
}

/** The result of the drain, once it is over. */
async function resultOf(server: TestServer, subject: string) {
  const [{ event: _, ...result }] = await server.control(subject, "wait", { event: "drained" });
  return result;
}

/** A client whose request is under way until {@link release}. */
async function openBusy(server: TestServer): Promise<Wire> {
  const busy = await Wire.open(server.port, "/public");
  busy.send({ type: "stall", name: "work" });
  await server.control("public", "wait", { event: "stalled" });
  return busy;
}

async function release(server: TestServer, busy: Wire): Promise<void> {
  await server.control("public", "release", { name: "work" });
  assert.deepEqual(await busy.next(), { type: "stall", status: "ok", data: "work" });
  await server.control("public", "advance", { ms: 50 });
  assert.deepEqual(await busy.closed, DRAINED);
}

/** How a node ends that a deploy replaces. */
export const draining: Behaviour[] = [
  {
    title: "a drain closes the clients evenly over its window, with 1012",
    async run(server) {
      const wires: Wire[] = [];
      for (let n = 0; n < 4; n++) wires.push(await Wire.open(server.port, "/public"));
      assert.equal(await server.control("public", "drain", { window: 4_000 }), "draining");
      for (let count = 1; count <= 4; count++) {
        await server.control("public", "advance", { ms: 1_000 });
        const closes = await server.control("public", "wait", { event: "close", count });
        assert.equal(closes.length, count);
        assert.deepEqual([closes.at(-1).code, closes.at(-1).cause], [1012, "drain"]);
      }
      for (const wire of wires) assert.deepEqual(await wire.closed, DRAINED);
      assert.deepEqual(await resultOf(server, "public"), { closed: 4, cut: 0, isClean: true });
      assert.equal(await server.control("public", "status"), "closed");
    },
  },
  {
    title: "a client with a request in progress is closed after the others, and after its answer",
    async run(server) {
      const busy = await openBusy(server);
      const idle = await Wire.open(server.port, "/public");
      await server.control("public", "drain", { retryAfter: 1_500 });
      assert.deepEqual(await idle.closed, { code: 1012, reason: "drained retry=1500" });
      assert.equal((await busy.ask({ type: "echo", uid: 1 })).uid, 1);
      await server.control("public", "release", { name: "work" });
      assert.equal((await busy.next()).data, "work");
      await server.control("public", "advance", { ms: 50 });
      assert.deepEqual(await busy.closed, { code: 1012, reason: "drained retry=1500" });
      assert.deepEqual(await resultOf(server, "public"), { closed: 2, cut: 0, isClean: true });
    },
  },
  {
    title: "a client whose request is not answered by the timeout is closed with 1001, and an error event says so",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.send({ type: "stall", name: "for good" });
      await server.control("public", "wait", { event: "stalled" });
      await server.control("public", "drain", { timeout: 1_000 });
      await server.control("public", "advance", { ms: 1_000 });
      assert.deepEqual(await wire.closed, { code: 1001, reason: "Going away" });
      assert.deepEqual(await resultOf(server, "public"), { closed: 0, cut: 1, isClean: false });
      const [{ error }] = await server.control("public", "wait", { event: "error" });
      assert.equal(error, "Error: Cannot drain in 1000 ms: 1 clients have requests in progress");
    },
  },
  {
    title: "upgrades are refused with 503 and Retry-After while a controller drains and when it is closed, and counted",
    async run(server) {
      const busy = await openBusy(server);
      await server.control("public", "drain", { retryAfter: 1_500 });
      const { answer } = await Wire.request(server.port, "/public");
      assert.deepEqual([answer.status, answer.headers["retry-after"]], [503, "2"]);
      const error = { code: "SERVICE_UNAVAILABLE", message: "The server is going away" };
      assert.deepEqual(JSON.parse(answer.body), { error });
      const [{ record }] = await server.control("public", "wait", { event: "warn" });
      assert.equal(record, "[noroshi] Refused an upgrade: The server is going away");
      // Another controller of the app is not concerned.
      (await Wire.open(server.port, "/plain")).reset();
      await server.control("public", "release", { name: "work" });
      await server.control("public", "advance", { ms: 50 });
      await busy.closed;
      await resultOf(server, "public");
      assert.equal((await Wire.request(server.port, "/public")).answer.status, 503);
      assert.equal((await server.control("public", "stats")).refused.draining, 2);
    },
  },
  {
    title: "a controller is not ready while it drains and when it is closed, but the process stays live",
    async run(server) {
      assert.deepEqual(await probe(server, "public", "ready"), [200, "ready"]);
      const busy = await openBusy(server);
      await server.control("public", "drain");
      assert.deepEqual(await probe(server, "public", "ready"), [503, "draining"]);
      assert.deepEqual(await probe(server, "public", "live"), [200, "live"]);
      await release(server, busy);
      await resultOf(server, "public");
      assert.deepEqual(await probe(server, "public", "ready"), [503, "closed"]);
      assert.deepEqual(await probe(server, "public", "live"), [200, "live"]);
      assert.deepEqual(await probe(server, "plain", "ready"), [200, "ready"]);
    },
  },
  {
    title: "each refusal has a reason, by which it is counted, and a line that says what to change",
    async run(server) {
      const refused: [
        reason: string,
        subject: string,
        status: number,
        path: string,
        headers: Record<string, string>,
        line: RegExp,
      ][] = [
        ["request", "strict", 400, "/strict", { "Sec-WebSocket-Key": "short" }, /Sec-WebSocket-Key must be 16 bytes in base64/],
        [
          "origin",
          "strict",
          403,
          "/strict",
          { Origin: "https://evil.example" },
          /Refused origin https:\/\/evil\.example: .* Add it to origins/,
        ],
        ["token", "strict", 401, "/strict", {}, /mode "strict" needs one in Sec-WebSocket-Protocol/],
        ["unavailable", "strict", 503, "/strict?access_token=throw", {}, /Authentication is unavailable/],
        ["pending", "full", 503, "/full", {}, /maxPending \(2\) is reached/],
      ];
      for (let n = 0; n < 2; n++) await Wire.open(server.port, "/full");
      for (const [reason, subject, status, path, headers, line] of refused) {
        const { answer } = await Wire.request(server.port, path, { headers });
        assert.equal(answer.status, status, reason);
        assert.equal((await server.control(subject, "stats")).refused[reason], 1, reason);
        const log: { event: string; record?: string }[] = await server.control(subject, "log");
        assert.match(log.filter(({ event }) => event === "warn").at(-1)?.record ?? "", line);
      }
    },
  },
];
