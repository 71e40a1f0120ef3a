/**
 * Deliveries for a second of CPU: one Durable Object with all clients beside relays with a part of them each, under Miniflare.
 *
 * `node --import tsx bench/shards.ts [--clients=4000] [--relays=8] [--publications=200] [--batch=5] [--rounds=5]`
 */
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { WebSocket } from "ws";
import { startWorker } from "../scripts/worker.ts";
import { cpuOf, named, tree } from "./process.ts";

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "4000" },
    relays: { type: "string", default: "8" },
    publications: { type: "string", default: "200" },
    batch: { type: "string", default: "5" },
    rounds: { type: "string", default: "5" },
  },
});
const [clients, relays, publications, batch, rounds] = [
  values.clients,
  values.relays,
  values.publications,
  values.batch,
  values.rounds,
].map(Number) as [number, number, number, number, number];

const file = join(
  dirname(fileURLToPath(import.meta.url)),
  "servers/worker-shards.ts",
);

/** Who publishes, and the objects with clients. */
const SIDES: Record<string, { home: string; objects: string[] }> = {
  "one object": { home: "alone", objects: ["alone"] },
  [`${relays} relays`]: {
    home: "home",
    objects: Array.from({ length: relays }, (_, n) => `home#${n}`),
  },
};

/** Receives numbers in order, and counts what is not so. */
class Reader {
  #next = 0;
  faults = 0;
  #reached: { count: number; resolve: () => void } | undefined;

  constructor(socket: WebSocket) {
    socket.on("message", (data) => {
      for (const message of [JSON.parse(String(data))].flat()) {
        if (message.event === "said") this.#take(message.data.n);
      }
    });
    socket.on("close", () => this.faults++);
  }

  until(count: number): Promise<void> {
    return new Promise((resolve) => {
      this.#reached = { count, resolve };
      this.#look();
    });
  }

  #take(n: number): void {
    if (n !== this.#next) this.faults++;
    this.#next = n + 1;
    this.#look();
  }

  #look(): void {
    if (this.#reached && this.#next >= this.#reached.count) {
      this.#reached.resolve();
    }
  }
}

async function connect(port: number, object: string): Promise<Reader> {
  const socket = new WebSocket(
    `ws://127.0.0.1:${port}/websocket?object=${encodeURIComponent(object)}`,
  );
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const begun = new Promise((resolve) => socket.once("message", resolve));
  socket.send(JSON.stringify({ type: "subscribe", channel: "news" }));
  await begun;
  return new Reader(socket);
}

/** Deliveries for a second of CPU. */
async function measure(
  { home, objects }: { home: string; objects: string[] },
): Promise<{ rate: number; ms: number; faults: number }> {
  const { miniflare, port } = await startWorker(file, "Alone", { others: ["Sharded"] });
  const readers: Reader[] = [];
  for (let n = 0; n < clients; n += 50) {
    const some = Array.from(
      { length: Math.min(50, clients - n) },
      (_, m) => connect(port, objects[(n + m) % objects.length]!),
    );
    readers.push(...await Promise.all(some));
  }
  const workerd = named(tree(process.pid), "workerd");
  let published = 0;
  const publish = async (until: number) => {
    while (published < until) {
      await fetch(
        `http://127.0.0.1:${port}/publish?object=${home}&first=${published}&count=${batch}`,
      );
      published += batch;
      await Promise.all(readers.map((reader) => reader.until(published)));
    }
  };
  await publish(publications / 5);
  const [first, cpu, begin] = [published, cpuOf(workerd), performance.now()];
  await publish(first + publications);
  const seconds = cpuOf(workerd) - cpu;
  const ms = (performance.now() - begin) / ((published - first) / batch);
  const faults = readers.reduce((sum, reader) => sum + reader.faults, 0);
  await miniflare.dispose();
  return { rate: clients * (published - first) / seconds, ms, faults };
}

const results = new Map<
  string,
  { rate: number; ms: number; faults: number }[]
>();
for (let round = 0; round < rounds; round++) {
  for (const [name, side] of Object.entries(SIDES)) {
    const result = await measure(side);
    results.set(name, [...results.get(name) ?? [], result]);
    console.error(
      `${round + 1}: ${name}: ${Math.round(result.rate)} deliveries a CPU second`,
    );
  }
}

const median = (numbers: number[]) => numbers.sort((one, other) => one - other)[Math.floor(numbers.length / 2)]!;
const base = results.get(Object.keys(SIDES)[0]!)!; // Each side has its results.
console.log(`${clients} clients, ${batch} publications at a time`);
console.log(
  "| | deliveries a CPU second | ratio | ms until all have them | faults |",
);
console.log("| --- | ---: | ---: | ---: | ---: |");
for (const [name, all] of results) {
  const ratio = median(all.map(({ rate }, round) => rate / base[round]!.rate));
  const faults = all.reduce((sum, { faults }) => sum + faults, 0);
  const [rate, ms] = [
    median(all.map(({ rate }) => rate)),
    median(all.map(({ ms }) => ms)),
  ];
  console.log(
    `| ${name} | ${Math.round(rate)} | ${ratio.toFixed(2)} | ${ms.toFixed(0)} | ${faults} |`,
  );
}
process.exit(0);
