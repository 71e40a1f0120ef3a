/**
 * A node is killed with SIGKILL at a random moment, or the broker is, and what was under way is repeated by another node: each id is published
 * once, and each request handled once, or answered OUTCOME_UNKNOWN. `KILLS=1000` kills so many times in place of a few; `SEED=…` repeats the
 * random delays.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import type { Position } from "../../src/engines/engine.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { Random } from "../support/random.ts";
import { until } from "../support/waiting.ts";
import { untilAnswered } from "./broker-fixture.ts";
import { createEngine, createHandler, HISTORY, onceOf } from "./killed-node.ts";

const KILLS = Number(process.env["KILLS"] ?? 3);
const HERE = fileURLToPath(new URL(".", import.meta.url));

/** A folder from which Node finds the packages of the project. */
let folder: string;
/** The program that is killed. As JavaScript it starts in a fifth of the time. */
let program: string;
before(async () => {
  folder = mkdtempSync(join(HERE, "../../node_modules/.noroshi-killed-"));
  program = join(folder, "killed-node.mjs");
  await build({
    entryPoints: [join(HERE, "killed-node.ts")],
    outfile: program,
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
  });
});
after(() => rmSync(folder, { recursive: true, force: true }));

const BROKERS = {
  redis: {
    skip: lacks("redis-server"),
    start: () => BrokerProcess.redis("--appendonly", "yes", "--appendfsync", "always"),
  },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
  postgres: { skip: lacksPostgres(), start: () => PostgresProcess.postgres({ keeps: true }) },
};

/** How often each number was handled, on all nodes. */
const handledBy = () => {
  const counts = new Map<number, number>();
  return {
    counts,
    add: (number: number) => void counts.set(number, (counts.get(number) ?? 0) + 1),
  };
};

for (const [name, { skip, start }] of Object.entries(BROKERS)) {
  describe(`Publications and requests with an id, over ${name}`, {
    skip,
    timeout: 300_000 + KILLS * 30_000,
  }, () => {
    it(`happen once when a node is killed and another repeats them, ${KILLS} times`, async (t) => {
      const random = new Random();
      t.diagnostic(`SEED=${random.seed}`);
      const broker = await start();
      const { counts, add } = handledBy();
      const engine = createEngine(name, broker.port);
      const { controller, ask, transport } = createHandler(engine, add);
      controller.start();
      const positions = new Map<number, number>();
      const unknown = new Set<number>();
      /** A node that was killed may have stored an answer, and not yet said that it handled the request. */
      const answered = new Set<number>();
      const publish = async (number: number) => {
        const position = await engine.publish(
          "log",
          { event: "wrote", data: `${number}` },
          HISTORY,
          onceOf(number),
        );
        return position!.offset;
      };
      try {
        await untilAnswered(() => engine.nodes());
        let next = 0;
        for (let kill = 0; kill < KILLS; kill++) {
          const child: ChildProcess = spawn(process.execPath, [program, name, `${broker.port}`, `${next}`], {
            stdio: ["ignore", "pipe", "inherit"],
          });
          const first = next;
          const closed = once(child, "close");
          const started = new Promise<void>((resolve, reject) => {
            void closed.then(() => reject(new Error("The node has ended by itself")));
            createInterface({ input: child.stdout! }).on("line", (line) => { // Piped above.
              const [word, number = 0, offset = 0] = line.split(" ").map((
                part,
                at,
              ) => at === 0 ? part : Number(part)) as [
                string,
                number?,
                number?,
              ];
              if (word === "begin") next = number + 1;
              else if (word === "handled") add(number);
              else positions.set(number, offset);
              resolve();
            });
          });
          await started;
          // The random moment is what the test tries.
          await new Promise((resolve) => setTimeout(resolve, random.below(60)));
          child.kill("SIGKILL");
          await closed;
          // What was under way, and a few that were answered.
          const begun = Array.from({ length: next - first }, (_, index) => first + index);
          // A request may be behind the publications.
          for (const number of begun.filter((number) => number >= next - 4 || !counts.has(number))) {
            const offset = await publish(number);
            assert.equal(
              offset,
              positions.get(number) ?? offset,
              `${number} stands elsewhere`,
            );
            ask(number);
            const answer = await answerOf(transport, number);
            if (answer.status === "ok") {
              assert.equal(answer.data, number);
              answered.add(number);
            } else {
              assert.equal(answer.error.code, "OUTCOME_UNKNOWN");
              unknown.add(number);
            }
          }
        }
        const { publications } = await engine.read(
          "log",
          HISTORY,
          null,
          HISTORY.size,
        );
        const data = publications.map(({ data }) => Number(data));
        assert.deepEqual(
          data.toSorted((one, other) => one - other),
          Array.from({ length: next }, (_, number) => number),
        );
        const wrong = [...counts].filter(([, count]) => count !== 1);
        assert.deepEqual(wrong, []);
        for (let number = 0; number < next; number++) {
          assert.ok(
            counts.has(number) || unknown.has(number) || answered.has(number),
            `${number} was lost`,
          );
        }
        t.diagnostic(`${next} numbers, ${unknown.size} unknown`);
      } finally {
        await controller.close();
        await broker.close();
      }
    });

    it(`happen once when the broker is killed and they are repeated, ${KILLS} times`, async (t) => {
      const random = new Random();
      t.diagnostic(`SEED=${random.seed}`);
      const broker = await start();
      const engine = createEngine(name, broker.port);
      const { controller } = createHandler(engine, () => {});
      controller.start();
      const positions: Position[] = [];
      let isOver = false;
      let repeats = 0;
      try {
        await untilAnswered(() => engine.nodes());
        const untilPublished = async (number: number): Promise<Position> => {
          for (;;) {
            try {
              const position = await engine.publish(
                "log",
                { event: "wrote", data: `${number}` },
                HISTORY,
                onceOf(number),
              );
              return position!; // With a history.
            } catch (error) {
              if (!(error instanceof WebSocketError)) throw error;
              repeats++;
              // The publisher's pause: an engine that is away rejects at once.
              await new Promise((resolve) => setTimeout(resolve, 20));
            }
          }
        };
        const publishing = (async () => {
          for (let number = 0; !isOver; number++) {
            positions.push(await untilPublished(number));
          }
        })();
        for (let kill = 0; kill < KILLS; kill++) {
          const { length } = positions;
          // The random moment is what the test tries.
          await new Promise((resolve) => setTimeout(resolve, random.below(60)));
          await broker.restart();
          await until(() => positions.length > length + 1);
        }
        isOver = true;
        await publishing;
        const { publications, position } = await engine.read(
          "log",
          HISTORY,
          null,
          HISTORY.size,
        );
        const data = publications.map(({ data }) => Number(data));
        assert.equal(
          new Set(data).size,
          data.length,
          "something was published twice",
        );
        // A broker that loses what it has acknowledged begins another epoch, which says so.
        const kept = positions.flatMap(({ epoch }, number) => epoch === position.epoch ? number : []);
        assert.deepEqual(kept.filter((number) => !data.includes(number)), []);
        t.diagnostic(
          `${positions.length} numbers, ${repeats} repeats, ${positions.length - kept.length} of another epoch`,
        );
      } finally {
        isOver = true;
        await controller.close();
        await broker.close();
      }
    });
  });
}

/** The answer to a request, once it has come. */
async function answerOf(
  transport: ReturnType<typeof createHandler>["transport"],
  number: number,
) {
  let answer: ReturnType<typeof transport.take>[number] | undefined;
  await until(() => (answer = transport.take().find(({ uid }) => uid === `${number}.once`)) !== undefined);
  return answer!; // `until` has waited for it.
}
