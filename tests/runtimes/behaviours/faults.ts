import assert from "node:assert/strict";
import { channelOf, connect } from "../channel-client.ts";
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

const KINDS = [
  "throw",
  "throw-undefined",
  "reject",
  "thenable",
  "cyclic",
  "details",
  "details-cycle",
  "bigint",
  "proxy",
  "reject-proxy",
  "json",
];

/** Whatever a channel's hooks throw, reject with or return: who asked is answered with a code, or has what it asked for. */
const values: Behaviour[] = KINDS.map((kind) => ({
  title: `every hook of a channel may fail (${kind}), and the request is answered`,
  async run(server) {
    const wire = await connect(server, "ann");
    const isShown = kind.startsWith("details");
    for (
      const message of [
        { type: "subscribe", channel: channelOf(`odd:${kind}`) },
        { type: "publish", channel: channelOf(`odd:${kind}`), event: "say" },
        { type: "subscribe", channel: channelOf(`wrong:${kind}`) },
        { type: "publish", channel: channelOf("shaped"), event: "say", data: kind },
      ]
    ) {
      const { status, event, error } = await wire.ask({ ...message, uid: 1 });
      const isAnswered = event === "init" || status === "error" && typeof error.code === "string";
      assert.ok(isAnswered, `${message.type} ${message.channel}: ${status}`);
      // A promise is none of a schema's, so that what it rejects with is not shown.
      if (isShown && !(kind === "details-cycle" && message.channel.startsWith("shaped"))) assert.equal(error.code, "NOT_TODAY");
      assert.doesNotMatch(JSON.stringify(error ?? null), /secret/);
    }
    // Nobody waits for a member's data: it has none.
    const channel = channelOf(`member:${kind}`);
    assert.equal((await wire.ask({ type: "subscribe", channel, uid: 2 })).event, "init");
    assert.deepEqual(await server.control("channels", "presence", { channel }), [{ user: "ann" }]);
    const log: { event: string }[] = await server.control("channels", "log");
    // The fixture's own `error` listener cannot read some of them: what it throws is logged.
    assert.ok(log.some(({ event }) => event === "error" || event === "logged"), "reported");
    assert.equal((await wire.ask({ type: "ping", uid: 3 })).type, "pong");
  },
}));

/** Whatever the application's code does, the process and the other clients go on. */
const hooks: Behaviour[] = ["throw", "throw-undefined", "reject", "reject-later", "thenable", "never"].map((plan) => ({
  title: `every callback of the application may fail (${plan}) without effect on other clients`,
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

export const faults: Behaviour[] = [...hooks, ...values];
