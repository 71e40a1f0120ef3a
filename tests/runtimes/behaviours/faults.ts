import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { Wire } from "../wire.ts";

const HOOKS = [
  "authenticate",
  "revalidate",
  "clientIp",
  "key",
  "handler",
  "middleware",
  "connect",
  "message",
  "error",
  "close",
  "auth.success",
  "auth.failure",
];

/** Whatever the application's code does, the process and the other clients go on. */
export const faults: Behaviour[] = ["throw", "throw-undefined", "reject", "reject-later", "thenable", "never"].map((plan) => ({
  title: `every callback of the application may go wrong (${plan}) and nobody else suffers`,
  async run(server) {
    const open = () => Wire.open(server.port, "/faulty?access_token=ann:editor:60");
    const honest = await Wire.open(server.port, "/public");
    // Two that are admitted while all is well: one leaves, and one expires, once nothing is.
    const leaving = await open();
    const expiring = await open();
    for (const wire of [leaving, expiring]) await wire.ask({ type: "ping" });
    const renewing = await Wire.open(server.port, "/faulty");
    await server.control("faulty", "plan", { plan });

    leaving.send({ type: "planned" });
    leaving.send({ type: "say", text: "x" });
    await leaving.close(1000);
    const refused = Wire.begin(server.port, "/faulty?access_token=ann");
    renewing.send({ type: "auth", access_token: "ann" });
    const welcome = await Wire.open(server.port, "/faulty");
    assert.deepEqual(await welcome.ask({ type: "auth", access_token: "fine" }), { type: "auth", status: "ok" });
    await server.control("faulty", "wait", { event: "authenticate", count: 5 });
    await server.control("faulty", "advance", { ms: 60_000 });
    await server.control("faulty", "advance", { ms: 10_000 });
    await refused.answered;
    assert.ok(refused.answer.status === 503 || refused.answer.status === 401, `answered ${refused.answer.status}`);
    assert.equal((await expiring.next()).error.code, "TOKEN_EXPIRED");
    await server.control("faulty", "plan", { plan: "null" });
    const again = await open();
    await again.close(1000);
    await server.control("faulty", "wait", { event: "close", count: 2 });

    const log: { event: string; hook?: string }[] = await server.control("faulty", "log");
    const failed = new Set(log.filter(({ event }) => event === "failing").map(({ hook }) => hook));
    assert.deepEqual(HOOKS.filter((hook) => !failed.has(hook)), []);
    assert.equal((await honest.ask({ type: "say", text: "still here" })).data, "still here");
    const { opened, closed, active } = await server.control("faulty", "stats");
    assert.equal(opened, closed + active);
  },
}));
