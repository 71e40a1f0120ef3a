/** Clients that go beyond each limit of a node: each has to be refused, or closed with the code of the limit. */
import { setTimeout as pause } from "node:timers/promises";
import { frame, Wire } from "./wire.ts";

/** How long one may take, in ms. */
const PATIENCE = 60_000;

/** What a client is told of its limit: the code of an error, or of a close. */
type Verdict = string | number;

/** One that went beyond a limit, and what it has to be told. */
interface HostileClient {
  readonly allowed: readonly Verdict[];
  run(port: number): Promise<Verdict>;
}

/** Resolves with the code of the close. 1006 where its node was killed meanwhile. */
async function codeOf(wire: Wire): Promise<number> {
  return (await wire.closed).code;
}

/** Sends more and more until it is closed. */
async function flood(wire: Wire, send: () => void): Promise<number> {
  let isOver = false;
  void wire.closed.then(() => isOver = true);
  while (!isOver) {
    send();
    await pause(1);
  }
  return await codeOf(wire);
}

export const HOSTILE_CLIENTS: Readonly<Record<string, HostileClient>> = {
  // Of a text that is longer than may be.
  maxPayload: {
    allowed: [1009],
    async run(port) {
      const wire = await Wire.open(port, "/limited");
      wire.write(frame(1, "x".repeat(100_000)));
      return await codeOf(wire);
    },
  },
  rateLimit: {
    allowed: [4529],
    async run(port) {
      const wire = await Wire.open(port, "/limited");
      return await flood(wire, () => {
        for (let count = 0; count < 50; count++) wire.send({ type: "ping" });
      });
    },
  },
  maxSubscriptions: {
    allowed: ["LIMIT_EXCEEDED"],
    async run(port) {
      const wire = await Wire.open(port, "/limited?access_token=greedy");
      for (let count = 0; count <= 128; count++) wire.send({ type: "subscribe", channel: `own:${count}`, uid: `${count}` });
      for (let message = await wire.next(); message !== null; message = await wire.next()) {
        if (message.status !== "error") continue;
        await wire.close(1000);
        return message.error.code;
      }
      return await codeOf(wire);
    },
  },
  // It publishes what it does not read.
  maxBufferedBytes: {
    // On a machine that is busy for longer than two heartbeats it is closed for that it answers none.
    allowed: [4508, 4504],
    async run(port) {
      const wire = await Wire.open(port, "/limited?access_token=deaf");
      await wire.ask({ type: "subscribe", channel: "own:loud" });
      wire.socket.pause();
      for (let count = 0; count < 120; count++) {
        wire.send({ type: "publish", channel: "own:loud", event: "wrote", data: "x".repeat(60_000) });
        if (count % 8 === 7) await pause(200);
      }
      // What lies in its own kernel, and then the close.
      wire.socket.resume();
      return await codeOf(wire);
    },
  },
};

/** What went wrong with clients of every limit: nothing is told of a node that went away meanwhile. */
export async function exceedLimits(port: number): Promise<string[]> {
  const problems = await Promise.all(
    Object.entries(HOSTILE_CLIENTS).map(async ([name, { allowed, run }]) => {
      // It keeps no process that is done.
      const late = pause(PATIENCE, "nothing", { ref: false });
      const verdict = await Promise.race([run(port).catch(() => 1006), late]);
      // The node was killed, stopped or cut off, or the broker is away.
      if (verdict === 1006 || verdict === "ENGINE_UNAVAILABLE" || allowed.includes(verdict)) return [];
      return [`${name}: answered ${verdict} in place of ${allowed}`];
    }),
  );
  return problems.flat();
}

/** Asks for everything that is kept, as often as it may, and reads nothing. */
export async function recoverWithoutReading(
  port: number,
  positions: ReadonlyMap<string, { epoch: string; offset: number }>,
  duration: number,
): Promise<void> {
  const wire = Wire.begin(port, "/websocket?access_token=attacker");
  await wire.answered;
  wire.socket.pause();
  const entries = [...positions];
  for (let count = 0; count < 120 && entries.length > 0; count++) {
    const [channel, position] = entries[count % entries.length]!; // Within its length.
    const recover = count % 2 === 0 ? position : { ...position, offset: 0 };
    wire.send({ type: "subscribe", channel, uid: `${count}`, recover });
  }
  await pause(duration);
  wire.reset();
}
