import process from "node:process";
import type { LanguageModel } from "ai";
import { MockLanguageModelV4, simulateReadableStream } from "ai/test";

const ANSWER =
  "I am a model for tests, and write the same answer to everybody, a word at a time. Load the page again while I write: I go on, " +
  "and the page shows what I have written meanwhile. Open it in a second tab: both show each word as it comes. Press Stop, and I " +
  "stop at once, in all tabs. Unplug the network for a few seconds: nothing is lost, and nothing comes twice.";

const usage = {
  inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: 1, text: 1, reasoning: undefined },
};

/** Time between two words of the model for tests, in ms. */
const DELAY = Number(process.env["AI_DELAY"] ?? 80);

/** `AI_MODEL` names a model of the AI Gateway, whose key is `AI_GATEWAY_API_KEY`. Without it a model for tests answers. */
export const createModel = (): LanguageModel =>
  process.env["AI_MODEL"] ?? new MockLanguageModelV4({
    doStream: () =>
      Promise.resolve({
        stream: simulateReadableStream({
          chunkDelayInMs: DELAY,
          chunks: [
            { type: "stream-start", warnings: [] } as const,
            { type: "text-start", id: "0" } as const,
            ...ANSWER.split(/(?<= )/).map((delta) => ({ type: "text-delta", id: "0", delta }) as const),
            { type: "text-end", id: "0" } as const,
            { type: "finish", finishReason: { unified: "stop", raw: undefined }, usage } as const,
          ],
        }),
      }),
  });
