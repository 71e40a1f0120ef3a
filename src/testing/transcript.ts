import type { Recorder } from "./wire.ts";

/** A frame: `>` sent by the client, `<` received by it. JSON is parsed, a close frame is `{ close, reason }`. */
export type SentFrame = [direction: ">" | "<", frame: unknown];

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

/** The frames of one client, over all its connections. */
export class Transcript {
  readonly #frames: [direction: ">" | "<", frame: string | object][] = [];
  /** By UUID: its name in {@link frames}. */
  readonly #uuids = new Map<string, string>();

  readonly record: Recorder = (direction, frame) => void this.#frames.push([direction, frame]);

  /** The frames so far. UUIDs, which are random, are replaced by `uuid-1` and so on, in the order in which they appear. */
  get frames(): SentFrame[] {
    return this.#frames.map(([direction, frame]) => [direction, typeof frame === "string" ? this.#read(frame) : { ...frame }]);
  }

  #read(text: string): unknown {
    const numbered = text.replace(UUID, (uuid) => {
      let name = this.#uuids.get(uuid);
      if (!name) this.#uuids.set(uuid, name = `uuid-${this.#uuids.size + 1}`);
      return name;
    });
    try {
      return JSON.parse(numbered);
    } catch {
      return numbered; // An application may send any text.
    }
  }
}
