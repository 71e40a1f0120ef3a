import fc from "fast-check";
import { replayCommand, SEED } from "./random.ts";

/** `fc.assert` with the seed of the test file. What it throws names the command that replays it. */
export function assertProperty<T>(property: fc.IAsyncProperty<T>, options?: fc.Parameters<T>): Promise<void>;
export function assertProperty<T>(property: fc.IProperty<T>, options?: fc.Parameters<T>): void;
export function assertProperty<T>(property: fc.IRawProperty<T>, options?: fc.Parameters<T>): Promise<void> | void {
  const command = replayCommand();
  const reporter = (details: fc.RunDetails<T>) => {
    if (!details.failed) return;
    throw new Error(`${fc.defaultReportMessage(details)}\n\nReplay: ${command}`, { cause: details.errorInstance });
  };
  // One of the two kinds, as the overloads say.
  return fc.assert(property as fc.IProperty<T>, { ...options, seed: SEED, reporter });
}
