/** The log of a controller in OpenTelemetry. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type EmittedRecord, observe } from "../../src/otel/otel.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { open } from "../support/fake-transport.ts";
import { turn } from "../support/waiting.ts";

describe("The option logger of observe", () => {
  it("receives each record in the data model of OpenTelemetry, beside the controller's own logger", async () => {
    const { controller, request } = createRoute({ logger: false, maxConnectionsPerIp: 1 });
    const records: EmittedRecord[] = [];
    const end = observe(controller, { meter: false, tracer: false, logger: { emit: (record) => void records.push(record) } });
    await request("/websocket");
    await request("/websocket");
    assert.deepEqual(records.splice(0), [{
      eventName: "noroshi.upgrade.refused",
      severityNumber: 13,
      severityText: "WARN",
      body: "Refused 192.0.2.1: maxConnectionsPerIp (1) is reached. Behind a proxy, set clientIp",
      attributes: {
        "noroshi.controller": "main",
        "noroshi.refusal.reason": "ip",
        "error.type": "LIMIT_EXCEEDED",
        "client.address": "192.0.2.1",
        "noroshi.option": "maxConnectionsPerIp",
        "noroshi.limit": 1,
      },
    }]);
    const { client, connection } = open(controller);
    connection.error(new Error("reset", { cause: new TypeError("why") }));
    const [{ attributes, ...record }] = records as [EmittedRecord];
    assert.deepEqual(record, { eventName: "noroshi.error", severityNumber: 17, severityText: "ERROR", body: "Error: reset" });
    assert.deepEqual([attributes["noroshi.client"], attributes["exception.message"]], [client.uid, "Error: reset"]);
    assert.match(String(attributes["exception.stacktrace"]), /^Error: reset\nat .*\ncaused by TypeError: why\nat /s);
    end();
    connection.error(new TypeError("after"));
    assert.equal(records.length, 1);
  });

  it("may throw or reject, and the other observers receive the record", async () => {
    const fail = () => {
      throw new Error("The logger fails");
    };
    for (const emit of [fail, () => Promise.reject(new Error("The logger fails"))]) {
      const { controller, request } = createRoute({ logger: false, maxConnectionsPerIp: 1 });
      const seen: string[] = [];
      observe(controller, { meter: false, tracer: false, logger: { emit } });
      controller.observe("test", () => ({ logged: (_level, { event }) => void seen.push(event) }));
      await request("/websocket");
      await request("/websocket");
      await turn(); // An unhandled rejection fails the test here.
      assert.deepEqual(seen, ["noroshi.upgrade.refused"]);
    }
  });
});
