import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { Wire } from "../wire.ts";

/** PROTOCOL.md 3.6: questions of the server, which the handler of `asks` asks the client that sent it. */
export const asking: Behaviour[] = [
  {
    title: "the server asks a client and receives its answer",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      const { uid, ...question } = await wire.ask({ type: "asks", uid: 1, text: "Delete?" });
      assert.deepEqual(question, { type: "confirm", text: "Delete?" });
      assert.match(uid, /^ask:.{1,60}$/);
      const reply = await wire.ask({ type: "confirm", uid, status: "ok", data: { yes: true } });
      assert.deepEqual(reply, { type: "asks", status: "ok", uid: 1, data: { yes: true } });
      const { uid: again } = await wire.ask({ type: "asks", uid: 2, text: "Delete?" });
      const { error } = await wire.ask({ type: "confirm", uid: again, status: "error", error: { code: "DECLINED" } });
      assert.equal(error.code, "DECLINED");
      wire.reset();
    },
  },
  {
    title: "an answer of another client, or a second one, is answered NOT_ASKED",
    hibernates: true,
    async run(server) {
      const [wire, other] = [await Wire.open(server.port, "/public"), await Wire.open(server.port, "/public")];
      const { uid } = await wire.ask({ type: "asks", uid: 1, text: "Delete?" });
      const answer = { type: "confirm", uid, status: "ok", data: "yes" };
      const notAsked = { type: "confirm", status: "error", uid, code: "NOT_ASKED" };
      const refusal = async (by: Wire) => {
        const { error: { code }, ...rest } = await by.ask(answer);
        return { ...rest, code };
      };
      assert.deepEqual(await refusal(other), notAsked);
      assert.equal((await wire.ask(answer)).data, "yes");
      assert.deepEqual(await refusal(wire), notAsked);
      // One that wakes a hibernating object finds no question either.
      await server.pause();
      assert.deepEqual(await refusal(wire), notAsked);
      wire.reset();
      other.reset();
    },
  },
];
