import { CHANNEL_NAME } from "../protocol/protocol.ts";

/** The parts of a channel name that a declaration names. */
export type Params = Readonly<Record<string, string>>;

const NO_PARAMS: Params = Object.freeze({});

const PARAM = /\{([A-Za-z]\w*)\}/g;

/** What ends a part of a channel name: `:` or `/`. Other characters outside the set are in no name. */
const PART_END = /[^\w.@=+~-]/g;

/** A part of a declared name: text, a parameter, text, and so on. */
interface Part {
  /** Text before, between and after the parameters; one more than these. */
  readonly texts: readonly string[];
  readonly params: readonly string[];
  /** The separator after it; `""`: the end of the name, or of the prefix. */
  readonly end: string;
}

/**
 * A declared channel name: `wire`, `room:{id}`, `room:*` or both, `tenant:{id}:*`. A prefix also matches itself: `room:*` covers
 * `room:`. Of parameters within one part, as in `{a}.{b}`, the earlier is as long as possible.
 */
export class ChannelPattern {
  /** Whether it is one name, without parameters and `*`. */
  readonly isExact: boolean;
  /** The same for all declared names that match the same names. */
  readonly shape: string;
  readonly #isPrefix: boolean;
  /** Number of characters that a name has in common with it. */
  readonly #literals: number;
  readonly #parts: readonly Part[];

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
    this.shape = declared.replace(PARAM, "{}");
    this.isExact = !this.#isPrefix && params.length === 0;
    this.#literals = name.replace(PARAM, "").length;
    this.#parts = partsOf(name);
  }

  matches(name: string): boolean {
    return name !== "__proto__" && this.#match(name) !== undefined;
  }

  /** The parameters of a name that it matches. */
  params(name: string): Params {
    return this.#match(name) ?? NO_PARAMS;
  }

  /** Takes a time in proportion to the name: a regular expression would try each way to divide it. */
  #match(name: string): Params | undefined {
    if (name === "") return undefined;
    let found: Record<string, string> | undefined;
    let start = 0;
    for (const part of this.#parts) {
      const stop = endOfPart(name, start);
      const isOpen = this.#isPrefix && part.end === "";
      if (!isOpen && name.slice(stop, stop + 1) !== part.end) return undefined;
      const values = valuesOf(name.slice(start, stop), part, isOpen);
      if (!values) return undefined;
      for (const [index, value] of values.entries()) {
        (found ??= Object.create(null) as Record<string, string>)[part.params[index]!] = value; // One for each.
      }
      start = stop + 1;
    }
    return found ?? NO_PARAMS;
  }

  /** Sorts the more specific pattern first: one without `*`, then the one with more characters of its own. */
  static compare(one: ChannelPattern, other: ChannelPattern): number {
    return Number(one.#isPrefix) - Number(other.#isPrefix) || other.#literals - one.#literals;
  }
}

function partsOf(name: string): Part[] {
  const parts = name.split(/(?<=[:/])/);
  if (/[:/]$/.test(name)) parts.push("");
  return parts.map((part) => {
    const end = /[:/]$/.exec(part)?.[0] ?? "";
    const pieces = part.slice(0, part.length - end.length).split(PARAM);
    return { texts: pieces.filter((_, i) => i % 2 === 0), params: pieces.filter((_, i) => i % 2 === 1), end };
  });
}

function endOfPart(name: string, start: number): number {
  PART_END.lastIndex = start;
  return PART_END.exec(name)?.index ?? name.length;
}

/**
 * Finds the values from right to left: the last occurrence of each text makes the parameters before it as long as possible.
 *
 * @param isOpen whether anything may follow the last text.
 */
function valuesOf(part: string, { texts }: Part, isOpen: boolean): string[] | undefined {
  const last = texts.length - 1;
  const first = texts[0]!; // There is always one.
  if (!part.startsWith(first)) return undefined;
  if (last === 0) return isOpen || part === first ? [] : undefined;
  if (!isOpen && !part.endsWith(texts[last]!)) return undefined;
  const values: string[] = [];
  let end = part.length;
  for (let i = last; i > 0; i--) {
    const text = texts[i]!;
    // A parameter has at least one character.
    const latest = end - text.length - (i < last ? 1 : 0);
    const at = latest < 0 ? -1 : part.lastIndexOf(text, latest);
    if (at < 0) return undefined;
    if (i < last) values.unshift(part.slice(at + text.length, end));
    end = at;
  }
  return end > first.length ? [part.slice(first.length, end), ...values] : undefined;
}
