import type { Said } from "../contract.ts";

/** What a client has seen, for a test that waits for it. */
export class Seen {
  readonly all: string[] = [];
  #wake = () => {};

  add(...texts: string[]): void {
    this.all.push(...texts);
    this.#wake();
  }

  /** Callbacks for a subscription to a room. */
  listen() {
    return {
      onInit: ({ data }: { data: Said[] }) => this.add("init", ...data.map(({ text }) => text)),
      onEvent: ({ data }: { data: Said }) => this.add(data.text),
      onGap: () => this.add("gap"),
    };
  }

  /** Resolves once the text is the last one. */
  async until(text: string): Promise<void> {
    while (this.all.at(-1) !== text) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}
