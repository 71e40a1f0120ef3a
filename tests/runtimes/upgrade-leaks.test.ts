import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it, type TestContext } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { ControllerStats } from "../../mod.ts";
import { Clients, ENDINGS, REFUSALS, type Stage, statusOf } from "./endings.ts";
import { startDurableObject, startServer, type TestServer } from "./server.ts";

/** How many mixed upgrades each runtime gets. `LEAK_UPGRADES=20000` takes minutes and tests the runtimes one by one. */
const UPGRADES = Number(process.env["LEAK_UPGRADES"] ?? 2_000);
const TAKES_TURNS = UPGRADES > 4_000;
/** Upgrades of one round: they begin together, and end before the next round begins. */
const ROUND = 200;
/** Upgrades before the first measurement, so that one-time allocations are made. */
const WARM_UP = 2 * ROUND;
/** Upgrades of the test of a single ending. */
const EACH = 8;
/** Descriptors that a runtime may open for itself, as Deno does with a pair of sockets. */
const OWN_DESCRIPTORS = 3;
/** Refused upgrades whose client keeps its own side open. */
const STAYING = 300;

/** How long a server may take to release everything, in ms. */
const SETTLE_TIMEOUT = 2_000;

/** The least number of checks in that time. */
const MIN_LOOKS = 20;

/** Longer than any answer takes, in ms. A test that would wait forever then reports what it waits for. */
const ANSWER_TIMEOUT = 240_000;

/**
 * What all upgrades may leave on the heap, in bytes: 2 KiB each, less than anything that holds a request. The heap itself grows by up to 1 MiB.
 */
const HEAP_TOLERANCE = Math.min(UPGRADES, 4_000) * 2_048;

/** The default of `timeout`, in ms. */
const TIMEOUT = 10_000;

/** How a runtime is tested. */
interface Plan {
  start(): Promise<TestServer>;
  /** Whether a refusal ends the TCP connection; otherwise it is a plain response, and the client may send another request. */
  endsRefused: boolean;
  /** How long the runtime itself keeps a socket that it has shut down, in ms. @default {0} */
  linger?: number;
  /** Endings that leak for a reason outside of this project. */
  without?: Record<string, string>;
}

/** The state that a server holds. */
interface State {
  stats: Record<string, ControllerStats>;
  timers: number;
  streams: number;
  events: { connect: number; close: number };
}

interface Resources {
  pid?: number;
  heap: number;
  listeners: Record<string, number>;
}

const STAGES: readonly Stage[] = ["stalled", "disconnected", "released", "passed"];

/** Checks that a server releases everything after upgrades, compared with the resources that it held at the start. */
class LeakCheck {
  readonly server: TestServer;
  readonly clients: Clients;
  readonly #linger: number;
  #pid = 0;
  #descriptors: ReadonlyMap<string, number> = new Map();

  private constructor(server: TestServer, linger: number) {
    this.server = server;
    this.#linger = linger;
    this.clients = new Clients(server.port);
  }

  static async open(start: () => Promise<TestServer>, linger: number): Promise<LeakCheck> {
    const check = new LeakCheck(await start(), linger);
    await check.round(["a clean close", "a reset", "a token that is wrong", "a plain request"]);
    await check.settle();
    const { pid } = await check.resources();
    check.#pid = pid ?? findChild("workerd");
    check.#descriptors = check.descriptors();
    return check;
  }

  async stop(): Promise<void> {
    this.clients.resetAll();
    await this.server.stop();
  }

  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  control(command: string, body?: unknown): Promise<any> {
    return this.server.control("all", command, body);
  }

  async resources(): Promise<Resources> {
    const resources = await this.control("resources");
    return this.server.heap ? { ...resources, heap: await this.server.heap() } : resources;
  }

  /** Runs these endings concurrently until all are done. */
  async round(names: string[]): Promise<void> {
    const { clients } = this;
    let courses = names.map((name) => ({ name, course: ENDINGS[name]!(clients), waitsFor: undefined as Stage | undefined }));
    const advance = async () => {
      await Promise.all(courses.map(async (each) => {
        const { value } = await inTime(each.course.next(), each.name);
        each.waitsFor = value ?? undefined; // The generator's end has none.
      }));
    };
    await advance();
    for (const stage of STAGES) {
      const waiting = courses.filter(({ waitsFor }) => waitsFor === stage);
      if (stage === "passed") await this.settle(waiting.length);
      await this.#reach(stage, waiting.length);
      const others = courses.filter(({ waitsFor }) => waitsFor !== undefined && waitsFor !== stage);
      courses = waiting;
      await advance();
      courses = [...courses.filter(({ waitsFor }) => waitsFor !== undefined), ...others];
    }
    assert.deepEqual(courses.map(({ name, waitsFor }) => `${name} waits for ${waitsFor}`), []);
    clients.resetAll();
  }

  /** Runs `count` upgrades with these endings in turn, round by round. */
  async mixed(endings: string[], count: number): Promise<void> {
    for (let begun = 0; begun < count; begun += ROUND) {
      await this.round(Array.from({ length: ROUND }, (_, i) => endings[(begun + i) % endings.length]!));
    }
  }

  /** Runs clients that keep their TCP connections open, and checks that the server releases everything. */
  async stay(visits: ((clients: Clients) => Promise<void>)[]): Promise<void> {
    await Promise.all(visits.map((visit) => visit(this.clients)));
    await this.settle();
    await this.release();
    this.clients.resetAll();
  }

  /** Triggers the event that the endings of a stage wait for. */
  async #reach(stage: Stage, count: number): Promise<void> {
    if (stage === "stalled") await inTime(this.control("stalled", { count }), `${count} that the application holds up`);
    else if (stage === "disconnected") await this.control("disconnect", { users: ["doomed", "slow-doomed"] });
    else if (stage === "released") await this.control("release");
    else {
      await this.control("advance", { ms: TIMEOUT }); // Ends unauthenticated clients, tokens and unanswered closes.
      await this.control("advance", { ms: TIMEOUT }); // Ends the grace of expired tokens.
    }
  }

  /** Resolves when the server holds nothing but `slots` reserved by upgrades that wait for its clock; rejects after {@link SETTLE_TIMEOUT}. */
  async settle(slots = 0): Promise<void> {
    await eventually(async () => {
      const { stats, timers, streams, events }: State = await this.control("state");
      const left: string[] = [];
      let reserved = 0;
      for (const [name, controller] of Object.entries(stats)) {
        reserved += controller.reserved;
        if (slots > 0) continue;
        for (const key of ["active", "clients", "pending", "reserved", "deadlines", "keys"] as const) {
          if (controller[key] !== 0) left.push(`${name}.${key} is ${controller[key]}`);
        }
        if (controller.opened !== controller.closed) {
          left.push(`${name} opened ${controller.opened}, closed ${controller.closed}`);
        }
      }
      if (reserved > slots) left.push(`${reserved} slots are reserved, ${slots} of them by upgrades that wait`);
      if (slots === 0 && timers > 0) left.push(`${timers} timers`);
      if (slots === 0 && events.connect !== events.close) left.push(`${events.connect} connects, ${events.close} closes`);
      if (streams > 0) left.push(`${streams} unread responses`);
      return left;
    });
  }

  /** Resolves when the process has as many descriptors as at the start; rejects after a while. */
  async release(): Promise<void> {
    await eventually(() =>
      Promise.resolve(
        [...this.descriptors()].map(([kind, count]) => ({ kind, more: count - (this.#descriptors.get(kind) ?? 0) }))
          .filter(({ more }) => more > OWN_DESCRIPTORS).map(({ kind, more }) => `${more} more of ${kind}`),
      ), SETTLE_TIMEOUT + this.#linger);
  }

  /** The number of open descriptors by kind, such as `socket`; empty when the system does not list them. */
  descriptors(): Map<string, number> {
    const counts = new Map<string, number>();
    if (this.#pid === 0 || process.platform !== "linux") return counts;
    const folder = `/proc/${this.#pid}/fd`;
    for (const name of readdirSync(folder)) {
      try {
        const kind = readlinkSync(join(folder, name)).replace(/:\[\d+\]$/, "");
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
      } catch {
        continue; // It was closed meanwhile.
      }
    }
    return counts;
  }
}

/** Resolves when nothing is left; rejects with what is, after a while. */
async function eventually(look: () => Promise<string[]>, timeout = SETTLE_TIMEOUT): Promise<void> {
  let waited = 0;
  for (let before = performance.now();;) {
    const left = await look();
    if (left.length === 0) return;
    const now = performance.now();
    // While the machine stalls during a check, nothing ends.
    waited += Math.min(now - before, timeout / MIN_LOOKS);
    before = now;
    if (waited > timeout) assert.fail(`After ${timeout} ms: ${left.join(", ")}`);
    await wait(10);
  }
}

/** Adds the name of the ending to an error, and rejects a wait that takes too long. */
async function inTime<T>(promise: Promise<T>, name: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => timer = setTimeout(reject, ANSWER_TIMEOUT, new Error("It did not end")));
  try {
    return await Promise.race([promise, late]);
  } catch (error) {
    throw new Error(`"${name}" went wrong: ${error}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** The process of this name that this one has started; 0 when there is none, or the system does not list it. */
function findChild(name: string): number {
  if (process.platform !== "linux") return 0;
  for (const pid of readdirSync("/proc").map(Number).filter((pid) => pid > 0)) {
    try {
      const [, command, parent] = readFileSync(`/proc/${pid}/stat`, "utf8").match(/\((.*)\) \S (\d+)/) ?? [];
      if (command === name && Number(parent) === process.pid) return pid;
    } catch {
      continue; // It has just ended.
    }
  }
  return 0;
}

function testUpgrades(name: string, { start, endsRefused, linger = 0, without = {} }: Plan): void {
  const endings = Object.keys(ENDINGS).filter((ending) => !(ending in without));
  describe(`upgrades on ${name}`, { concurrency: 1 }, () => {
    let check: LeakCheck;
    before(async () => {
      check = await LeakCheck.open(start, linger);
    });
    after(() => check.stop());

    for (const ending of Object.keys(ENDINGS)) {
      it(`release everything after ${ending}`, { skip: without[ending] ?? false, timeout: 300_000 }, async () => {
        try {
          await check.round(Array<string>(EACH).fill(ending));
          await check.settle();
          await check.release();
        } catch (error) {
          // A leak of this ending must not fail the tests after it.
          await check.stop();
          check = await LeakCheck.open(start, linger);
          throw error;
        }
      });
    }

    const stays = {
      skip: !endsRefused && "A refusal is a plain response here: the client may send another request",
      timeout: 300_000,
    };
    it(`release everything when ${STAYING} refused clients keep their own side open`, stays, async () => {
      // The HTTP server keeps the connection alive after a request without an upgrade.
      const refusals = Object.values(REFUSALS).filter(([, , { method, follow, headers = {} } = {}]) =>
        !method && !follow && !("Upgrade" in headers)
      );
      await check.stay(Array.from({ length: STAYING }, (_, i) => async (clients) => {
        const [statuses, path, options] = refusals[i % refusals.length]!;
        statusOf(await clients.ask(path, { ...options, staysOpen: true }), statuses);
      }));
    });

    it(`release everything when ${STAYING} closed clients keep their own side open`, { timeout: 300_000 }, async () => {
      await check.stay(Array.from({ length: STAYING }, () => async (clients) => {
        const wire = await clients.open("/public", { staysOpen: true });
        assert.equal((await wire.close(1000)).code, 1000);
      }));
    });

    it(`release everything after ${UPGRADES} mixed endings`, { timeout: 300_000 }, async (t: TestContext) => {
      await check.mixed(endings, WARM_UP);
      await check.settle();
      const earlier = await check.resources();
      const start = performance.now();
      await check.mixed(endings, UPGRADES);
      t.diagnostic(`${UPGRADES} upgrades, ${endings.length} endings, ${Math.round((performance.now() - start) / 1000)} s`);
      await check.settle();
      await check.release();
      const now = await check.resources();
      assert.deepEqual(now.listeners, earlier.listeners);
      t.diagnostic(`the heap grew by ${now.heap - earlier.heap} bytes`);
      assert.ok(now.heap - earlier.heap < HEAP_TOLERANCE, `The heap grew by ${now.heap - earlier.heap} bytes`);
    });
  });
}

const here = dirname(fileURLToPath(import.meta.url));
const serve = join(here, "fixture/upgrade-leaks-serve.ts");
const deno = join(here, "fixture/upgrade-leaks-deno.ts");
const worker = join(here, "fixture/upgrade-leaks-worker.ts");

describe("upgrades", { concurrency: TAKES_TURNS ? 1 : true }, () => {
  testUpgrades("Node", { start: () => startServer("node", serve), endsRefused: true });
  // Bun checks its socket timeouts every 4 s.
  testUpgrades("Bun", { start: () => startServer("bun", serve), endsRefused: false, linger: 4_000 });
  testUpgrades("Deno", { start: () => startServer("deno", serve), endsRefused: true });
  testUpgrades("Deno.serve", {
    start: () => startServer("deno", deno),
    endsRefused: false,
    without: {
      "a POST with a body that asks for HTTP/2": "Deno.serve answers 400 by itself to a length beside an Upgrade header",
      "a reset while a middleware runs after the route":
        "Deno reports no reset after its upgrade: the slot is released after `timeout`",
      "a FIN while a middleware runs after the route":
        "Deno reports no end after its upgrade: the slot is released after `timeout`",
      "a body that comes slowly": "Deno.serve answers 400 by itself to a length beside an Upgrade header",
    },
  });
  testUpgrades("a Durable Object", {
    start: () => startDurableObject(worker, true, true),
    endsRefused: false,
    without: {
      "a body that comes slowly": "workerd makes a GET of a POST that asks for a WebSocket",
      "an endless answer to an upgrade, and a reset": "workerd does not cancel the body of any answer whose client is gone",
      "an endless answer to another upgrade, and a reset": "workerd does not cancel the body of any answer whose client is gone",
    },
  });
});
