import { CHANNEL_NAME } from "../protocol/protocol.ts";

/** Values of the parameters in a channel name, by parameter. */
export type Params = Readonly<Record<string, string>>;

const NO_PARAMS: Params = Object.freeze({});

const PARAM = /\{([A-Za-z]\w*)\}/g;

/** The end of a part of a channel name: `:` or `/`. Names have no other character outside the set. */
const PART_END = /[^\w.@=+~-]/g;

/** A part of a declared name: text, a parameter, text, and so on. */
interface Part {
  /** Texts before, between and after the parameters: one more than there are parameters. */
  readonly texts: readonly string[];
  readonly params: readonly string[];
  /** The separator after the part; `""` at the end of the name or prefix. */
  readonly end: string;
}

/**
 * A declared channel name: `wire`, `room:{id}`, `room:*` or both, `tenant:{id}:*`. A prefix also matches itself: `room:*` covers
 * `room:`. If one part has several parameters, as in `{a}.{b}`, earlier ones match as much as possible.
 */
export class ChannelPattern {
  /** Whether it has neither parameters nor `*`, and so matches one name only. */
  readonly isExact: boolean;
  /** Equal for declared names that match the same channel names. */
  readonly shape: string;
  readonly #isPrefix: boolean;
  /** Number of characters outside the parameters. */
  readonly #literalLength: number;
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
    this.#literalLength = name.replace(PARAM, "").length;
    this.#parts = partsOf(name);
  }

  matches(name: string): boolean {
    return name !== "__proto__" && this.#match(name) !== undefined;
  }

  /** The parameters of a name that the pattern matches. */
  params(name: string): Params {
    return this.#match(name) ?? NO_PARAMS;
  }

  /** Takes linear time. A regular expression would backtrack through all ways to divide the name. */
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
        (found ??= Object.create(null) as Record<string, string>)[part.params[index]!] = value; // Each value has a parameter.
      }
      start = stop + 1;
    }
    return found ?? NO_PARAMS;
  }

  /** Sorts the more specific pattern first: without `*` before with `*`, then by the number of characters outside parameters. */
  static compare(one: ChannelPattern, other: ChannelPattern): number {
    return Number(one.#isPrefix) - Number(other.#isPrefix) || other.#literalLength - one.#literalLength;
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
 * Finds the values of the parameters from right to left. Matching the last occurrence of each text makes earlier parameters as long as
 * possible.
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
