import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { admission } from "./behaviours/admission.ts";
import { asking } from "./behaviours/asking.ts";
import { attending } from "./behaviours/attending.ts";
import { authentication } from "./behaviours/authentication.ts";
import { closing } from "./behaviours/closing.ts";
import { delivery } from "./behaviours/delivery.ts";
import { directus } from "./behaviours/directus.ts";
import { directusSubscriptions } from "./behaviours/directus-subscriptions.ts";
import { draining } from "./behaviours/draining.ts";
import { expiry } from "./behaviours/expiry.ts";
import { faults } from "./behaviours/faults.ts";
import { handling } from "./behaviours/handling.ts";
import { inputs } from "./behaviours/inputs.ts";
import { limits } from "./behaviours/limits.ts";
import { messages } from "./behaviours/messages.ts";
import { publishing } from "./behaviours/publishing.ts";
import { racing } from "./behaviours/racing.ts";
import { recovering } from "./behaviours/recovering.ts";
import { renewing } from "./behaviours/renewing.ts";
import { resuming } from "./behaviours/resuming.ts";
import { state } from "./behaviours/state.ts";
import { streaming } from "./behaviours/streaming.ts";
import { subscribing } from "./behaviours/subscribing.ts";
import { tokens } from "./behaviours/tokens.ts";
import { upgrading } from "./behaviours/upgrading.ts";
import { validating } from "./behaviours/validating.ts";
import { inTime } from "../support/waiting.ts";
import type { TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

/** One thing a client or an application can see, the same on every runtime. */
export interface Behaviour {
  title: string;
  run(server: TestServer): Promise<void>;
  /** Calls `server.pause()` between steps, so that it is run again with hibernation in between. */
  hibernates?: boolean;
}

/** What a runtime does differently, why, and what is checked instead. */
export interface Difference {
  because: string;
  instead(server: TestServer): Promise<void>;
}

/** Options of {@link conformance}. */
export interface ConformanceOptions {
  /** By the title of the behaviour. */
  differences?: Record<string, Difference>;
  /** Run only the behaviours that hibernate, with eviction at every `server.pause()`. */
  hibernating?: boolean;
}

/** Every behaviour, by the part of a connection's life it belongs to. */
const AREAS: Record<string, Behaviour[]> = {
  upgrading,
  admission,
  tokens,
  authentication,
  expiry,
  messages,
  limits,
  handling,
  validating,
  asking,
  streaming,
  resuming,
  inputs,
  faults,
  delivery,
  closing,
  draining,
  state,
  subscribing,
  racing,
  publishing,
  recovering,
  attending,
  renewing,
  directus,
  "directus subscriptions": directusSubscriptions,
};

/** Runs every behaviour against a runtime. What it does differently is declared, never left out. */
export function conformance(runtime: string, start: () => Promise<TestServer>, options: ConformanceOptions = {}): void {
  const { differences = {}, hibernating = false } = options;
  const titles = new Set(Object.values(AREAS).flat().map(({ title }) => title));
  for (const title of Object.keys(differences)) {
    if (!titles.has(title)) throw new Error(`No behaviour is called "${title}"`);
  }
  describe(`${runtime}${hibernating ? ", hibernating" : ""}`, () => {
    let server: TestServer;
    before(async () => {
      server = await start();
      if (hibernating) server.pause = async () => void await server.evict!();
    });
    after(() => server.stop());
    for (const [area, behaviours] of Object.entries(AREAS)) {
      describe(area, () => {
        for (const { title, run, hibernates } of behaviours) {
          if (hibernating && !hibernates) continue;
          const difference = differences[title];
          const name = difference ? `${title} — differs: ${difference.because}` : title;
          it(name, { timeout: 300_000 }, async () => {
            await server.control("all", "fresh");
            try {
              await inTime("what this test waits for", () => Wire.seen(), (difference?.instead ?? run)(server));
            } finally {
              Wire.resetAll();
            }
            for (const { name, opened, closed, active, closedBy } of await server.control("all", "stats")) {
              assert.equal(opened, closed + active, `the counters of "${name}" do not reconcile`);
              const causes = Object.values<number>(closedBy).reduce((sum, count) => sum + count, 0);
              assert.equal(causes, closed, `the closes of "${name}" have not one cause each`);
            }
          });
        }
      });
    }
  });
}
