import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Bus } from "../../src/base/bus.ts";
import { turn } from "../support/waiting.ts";

type Events = { greet: { name: string }; leave: { name: string } };

/** A bus, what its listeners were called with, and what it reported. */
function create() {
  const calls: string[] = [];
  const reports: unknown[][] = [];
  const bus = new Bus<Events>((...report) => reports.push(report));
  const listener = (label: string) => ({ name }: { name: string }) => void calls.push(`${label} ${name}`);
  return { bus, calls, reports, listener };
}

const ann = { name: "ann" };

describe("Bus", () => {
  it("emit calls the event's listeners with the payload, in the order they were added", () => {
    const { bus, calls, listener } = create();
    bus.on("greet", listener("first"));
    bus.on("leave", listener("other"));
    bus.on("greet", listener("second"));
    assert.deepEqual([bus.emit("greet", ann), bus.emit("leave", ann)], [true, true], "somebody listens");
    assert.deepEqual(calls, ["first ann", "second ann", "other ann"]);
  });

  it("emit does nothing when nobody listens", () => {
    const { bus, reports } = create();
    assert.equal(bus.emit("greet", ann), false);
    assert.deepEqual(reports, []);
  });

  it("on calls a listener as often as it was added", () => {
    const { bus, calls, listener } = create();
    const twice = listener("twice");
    bus.on("greet", twice);
    bus.on("greet", twice);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["twice ann", "twice ann"]);
  });

  it("off removes one, of this listener and event", () => {
    const { bus, calls, listener } = create();
    const [kept, removed] = [listener("kept"), listener("removed")];
    for (const each of [kept, removed, removed]) bus.on("greet", each);
    bus.on("leave", removed);
    bus.off("greet", removed);
    bus.emit("greet", ann);
    assert.deepEqual(calls.splice(0), ["kept ann", "removed ann"]);
    bus.off("greet", removed);
    bus.emit("greet", ann);
    bus.emit("leave", ann);
    assert.deepEqual(calls, ["kept ann", "removed ann"]);
  });

  it("off removes nothing when the listener is not there any more or never was", () => {
    const { bus, calls, listener } = create();
    const [kept, gone] = [listener("kept"), listener("gone")];
    bus.on("greet", kept);
    bus.on("greet", gone);
    bus.off("greet", gone);
    bus.off("greet", gone);
    bus.off("greet", listener("never"));
    bus.off("leave", kept);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["kept ann"]);
  });

  it("on adds a listener again after off", () => {
    const { bus, calls, listener } = create();
    const again = listener("again");
    bus.on("greet", again);
    bus.off("greet", again);
    bus.on("greet", again);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["again ann"]);
  });

  it("emit leaves nobody out when a listener removes itself or others", () => {
    const { bus, calls, listener } = create();
    const second = listener("second");
    const once = () => {
      calls.push("once");
      bus.off("greet", once);
      bus.off("greet", second);
    };
    bus.on("greet", once);
    bus.on("greet", second);
    bus.on("greet", listener("third"));
    bus.emit("greet", ann);
    assert.deepEqual(calls.splice(0), ["once", "second ann", "third ann"]);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["third ann"]);
  });

  it("emit does not call a listener that is added by another one before the next event", () => {
    const { bus, calls, listener } = create();
    const late = listener("late");
    bus.on("greet", () => bus.on("greet", late));
    bus.emit("greet", ann);
    assert.deepEqual(calls, []);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["late ann"]);
  });

  it("emit calls every listener when some throw, and reports each with its event and payload", () => {
    const { bus, calls, reports, listener } = create();
    const error = new Error("thrown");
    const thrower = (thrown: unknown) => () => {
      throw thrown;
    };
    for (const each of [listener("first"), thrower(error), listener("second"), thrower(undefined)]) bus.on("greet", each);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["first ann", "second ann"]);
    assert.deepEqual(reports, [[error, "greet", ann], [undefined, "greet", ann]]);
  });

  it("emit reports the rejection of a listener, with the payload of its own event", async () => {
    const { bus, reports } = create();
    bus.on("greet", async ({ name }) => {
      await turn();
      throw name;
    });
    bus.emit("greet", ann);
    bus.emit("greet", { name: "bob" });
    await turn();
    await turn();
    assert.deepEqual(reports, [["ann", "greet", ann], ["bob", "greet", { name: "bob" }]]);
  });

  it("emit nests: an event that a listener emits is heard before the next listener", () => {
    const { bus, calls, listener } = create();
    bus.on("greet", (payload) => bus.emit("leave", payload));
    bus.on("greet", listener("greet"));
    bus.on("leave", listener("leave"));
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["leave ann", "greet ann"]);
  });

  it("has tells whether anybody listens", () => {
    const { bus, listener } = create();
    const only = listener("only");
    assert.equal(bus.has("greet"), false);
    bus.on("greet", only);
    assert.deepEqual([bus.has("greet"), bus.has("leave")], [true, false]);
    bus.off("greet", only);
    assert.equal(bus.has("greet"), false);
  });

  it("clear removes everybody", () => {
    const { bus, calls, listener } = create();
    bus.on("greet", listener("greet"));
    bus.on("leave", listener("leave"));
    bus.clear();
    bus.emit("greet", ann);
    bus.emit("leave", ann);
    assert.deepEqual(calls, []);
  });

  it("keeps two buses apart when they share a listener", () => {
    const { bus, calls, listener } = create();
    const { bus: other } = create();
    const shared = listener("shared");
    bus.on("greet", shared);
    other.on("greet", shared);
    other.off("greet", shared);
    bus.emit("greet", ann);
    assert.deepEqual(calls, ["shared ann"]);
  });
});
