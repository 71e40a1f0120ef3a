import { CHANNEL_NAME } from "../protocol/protocol.ts";

/** The parts of a channel name that a declaration names. */
export type Params = Readonly<Record<string, string>>;

const NO_PARAMS: Params = Object.freeze({});

const PARAM = /\{([A-Za-z]\w*)\}/g;

/** The characters of a channel name without `:` and `/`, which separate its parts. */
const PART = "[\\w.@=+~-]+";

/** A declared channel name: `wire`, `room:{id}`, `room:*` or both, `tenant:{id}:*`. A prefix also matches itself: `room:*` covers `room:`. */
export class ChannelPattern {
  /** Whether it is one name, without parameters and `*`. */
  readonly isExact: boolean;
  readonly #isPrefix: boolean;
  /** Number of characters that a name has in common with it. */
  readonly #literals: number;
  readonly #regexp: RegExp;

  /** @throws {TypeError} for an invalid name. */
  constructor(declared: string) {
    this.#isPrefix = declared.endsWith("*");
    const name = this.#isPrefix ? declared.slice(0, -1) : declared;
    const params = Array.from(name.matchAll(PARAM), ([, param]) => param);
    const isName = name === "" ? this.#isPrefix : CHANNEL_NAME.test(name.replace(PARAM, "0"));
    if (!isName || name.includes("}{") || new Set(params).size < params.length) {
      throw new TypeError(
        `Cannot declare the channel "${declared}": a name is 1 to 255 of A–Z a–z 0–9 _ - . : / @ = + ~, may have parameters of different names, such as {id}, and may end in * to match a prefix`,
      );
    }
    this.isExact = !this.#isPrefix && params.length === 0;
    this.#literals = name.replace(PARAM, "").length;
    const pattern = name.split(/(\{\w+\})/).map((piece) =>
      piece.startsWith("{") ? `(?<${piece.slice(1, -1)}>${PART})` : piece.replace(/\W/g, "\\$&")
    );
    this.#regexp = new RegExp(`^${pattern.join("")}${this.#isPrefix ? "" : "$"}`);
  }

  matches(name: string): boolean {
    return name !== "" && this.#regexp.test(name);
  }

  /** The parameters of a name that it matches. */
  params(name: string): Params {
    return this.#regexp.exec(name)?.groups ?? NO_PARAMS;
  }

  /** Sorts the more specific pattern first: one without `*`, then the one with more characters of its own. */
  static compare(one: ChannelPattern, other: ChannelPattern): number {
    return Number(one.#isPrefix) - Number(other.#isPrefix) || other.#literals - one.#literals;
  }
}
