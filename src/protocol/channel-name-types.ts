/** @internal `unknown` if no declaration matches one of the names, `ambiguous` if two match it equally well; else `never`. */
export type NameFault<Declared extends string, Name extends string> = Name extends unknown
  ? IsName<Name> extends false ? "unknown"
  : Name extends Declared ? never
  : [Candidate<Declared, Name>] extends [never] ? "unknown"
  : [Longest<Candidate<Declared, Name>>] extends [never] ? "ambiguous"
  : never
  : never;

/** @internal The declared names with parameters that match the name; if there are none, the prefixes that match it. */
export type Candidate<Declared extends string, Name extends string> = [Matching<Exclude<Declared, `${string}*`>, Name>] extends
  [never] ? Matching<Extract<Declared, `${string}*`>, Name>
  : Matching<Exclude<Declared, `${string}*`>, Name>;

/** @internal The declared name with the most characters besides its parameters; `never` if two have as many. */
export type Longest<Declared extends string, All extends string = Declared> = Declared extends unknown
  ? [NotShorter<Exclude<All, Declared>, TextOf<Declared>>] extends [never] ? Declared : never
  : never;

/** @internal */
type NotShorter<Declared extends string, Text extends string> = Declared extends unknown
  ? IsLonger<Text, TextOf<Declared>> extends true ? never : Declared
  : never;

/** @internal */
type IsLonger<One extends string, Other extends string> = One extends `${infer _}${infer RestOfOne}`
  ? Other extends `${infer _}${infer RestOfOther}` ? IsLonger<RestOfOne, RestOfOther> : true
  : false;

/** @internal A declared name without its parameters. */
type TextOf<Declared extends string> = Declared extends `${infer Head}{${string}}${infer Rest}` ? `${Head}${TextOf<Rest>}`
  : Declared extends `${infer Prefix}*` ? Prefix
  : Declared;

/** @internal The declared names with parameters, and the prefixes, that match the name, as `ChannelPattern` decides. */
type Matching<Declared extends string, Name extends string> = Declared extends `${infer Head}{${string}}${infer Rest}`
  ? Name extends `${Head}${infer Tail}` ? HasParts<Rest, Tail> extends true ? Declared : never : never
  : Declared extends `${infer Prefix}*` ? Name extends `${Prefix}${string}` ? Declared : never
  : never;

/**
 * @internal Whether the rest of a name is the value of a parameter followed by the rest of the declaration. Only the shortest
 * value is tried: a longer one leaves less for the rest.
 */
type HasParts<Declared extends string, Name extends string> = Declared extends "" ? IsPart<Name>
  : Declared extends "*" ? string extends Name ? true : Name extends `${infer First}${string}` ? IsPart<First> : false
  : Declared extends `${infer Text}{${string}}${infer Rest}`
    ? Name extends `${infer First}${infer More}${Text}${infer Tail}`
      ? IsPart<`${First}${More}`> extends true ? HasParts<Rest, Tail> : false
    : false
  : Declared extends `${infer Text}*`
    ? Name extends `${infer First}${infer More}${Text}${string}` ? IsPart<`${First}${More}`> : false
  : Name extends `${infer First}${infer More}${Declared}` ? IsPart<`${First}${More}`>
  : false;

/** @internal Whether the text may be the value of a parameter: it is not empty, and has no separator. */
type IsPart<Value extends string> = Value extends "" | `${string}:${string}` | `${string}/${string}` ? false : true;

/** @internal */
export type Letter =
  | ("A" | "B" | "C" | "D" | "E" | "F" | "G" | "H" | "I" | "J" | "K" | "L" | "M")
  | ("N" | "O" | "P" | "Q" | "R" | "S" | "T" | "U" | "V" | "W" | "X" | "Y" | "Z");

/** @internal */
export type Digit = "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9";

/** @internal Characters of a channel name (PROTOCOL.md §4), in upper case. */
type NameCharacter = Letter | Digit | "_" | "-" | "." | ":" | "/" | "@" | "=" | "+" | "~";

/** @internal Whether the text may be the name of a channel, or part of one. `true` if it is not known at compile time. */
export type IsName<Name extends string> = Name extends "" | "__proto__" ? false
  : Record<never, never> extends Record<Name, true> ? true
  : ConsistsOf<Name, NameCharacter>;

/** @internal Whether each character of the text, in upper case, is one of the given ones. */
export type ConsistsOf<Text extends string, Character> = Text extends `${infer First}${infer Rest}`
  ? Uppercase<First> extends Character ? ConsistsOf<Rest, Character> : false
  : true;
