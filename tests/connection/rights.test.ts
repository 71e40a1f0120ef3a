/** `src/connection/rights.ts`: orders of other nodes, which may arrive late. Those of this node are `revocation.test.ts`'. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Connections } from "../../src/connection/connections.ts";
import { Revocations } from "../../src/connection/revocations.ts";
import { Rights } from "../../src/connection/rights.ts";
import type { SavedConnection } from "../../src/delivery/transport.ts";
import { HANDSHAKE, HibernatingTransport, open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";

const TIMEOUT = 2_000;
const ANN = { user: "ann", role: null };

/** The rights of a node, with a client that has authenticated and one that has returned from hibernation. */
function create(canRefresh = true) {
  const asked: string[] = [];
  const observed = observe({
    authenticate: () => null,
    revalidate: ({ uid, accountability }) => {
      asked.push(uid);
      return { accountability };
    },
  });
  const { controller, clock } = observed;
  const connections = new Connections();
  const opened = open(controller, { identity: { accountability: ANN } });
  const saved: SavedConnection = {
    controller: "main",
    uid: "restored",
    handshake: HANDSHAKE,
    state: null,
    phase: "admitted",
    until: 0,
    accountability: ANN,
    expires_at: null,
  };
  const transport = new HibernatingTransport();
  for (const each of [opened.connection, controller.restore(transport, saved)]) connections.add(each);
  const revocations = new Revocations(2 * TIMEOUT);
  const rights = new Rights({ connections, revocations, timeout: TIMEOUT, canRefresh, monotonic: () => clock.monotonic() });
  return {
    ...observed,
    rights,
    revocations,
    asked,
    uid: opened.client.uid,
    closed: () => [opened.transport, transport].map(({ closes }) => closes.length),
  };
}

describe("Rights", () => {
  it("spare a client that authenticated later than timeout after the order, unless that time is unknown", async () => {
    for (const [age, isSpared] of [[12_000, false], [12_001, true], [undefined, false]] as const) {
      const { rights, clock, asked, closed, uid } = create();
      clock.advance(10_000);
      const refreshed = rights.refresh({ user: "ann" }, age);
      assert.deepEqual(asked, isSpared ? ["restored"] : [uid, "restored"], String(age));
      rights.disconnect({ user: "ann" }, 4403, "Disconnected", age);
      assert.deepEqual(closed(), isSpared ? [0, 1] : [1, 1], String(age));
      await refreshed;
    }
  });

  it("refuse authentications that began before the order, unless it is so late that they have ended", () => {
    for (const [age, isKept] of [[undefined, true], [0, true], [3_999, true], [4_000, false]] as const) {
      const { rights, revocations } = create();
      rights.disconnect({ user: "ann" }, 4403, "Disconnected", age);
      assert.equal(revocations.includes("disconnected", ANN, 0), isKept, String(age));
    }
  });

  it("ignore a refresh on a node without revalidate", async () => {
    const { rights, revocations, asked } = create(false);
    await rights.refresh({});
    assert.deepEqual([revocations.number, asked], [0, []]);
  });
});
