/** @internal Values that JSON does not change. */
type Primitive = string | number | boolean | null;

/** @internal Values that JSON omits from an object, and replaces by `null` in an array. */
type Omitted = undefined | symbol | ((...args: never) => unknown);

/** @internal */
interface Encodes {
  toJSON(...args: never): unknown;
}

/**
 * The type of a value after `JSON.stringify` and `JSON.parse`. A type that is JSON stays the same type. A `Date`, and anything
 * else with `toJSON`, becomes what that returns, and a `Map` or a `Set` becomes `{}`. A field that may be `undefined` or a
 * function becomes optional, such an item `null`. A bigint, which JSON cannot represent, becomes `never`.
 */
export type JsonOf<T> = unknown extends T ? T
  // Inferred, because TypeScript would otherwise look into each branch for a type that it does not know yet.
  : Changed<Exclude<T, undefined>> extends infer Is ? [Is] extends [never] ? T : EachOf<T>
  : never;

/** @internal `true` if JSON changes a value of the type, else `never`. */
type Changed<T> = Search<KnownParts<T>, Omitted | bigint | Encodes>;

/**
 * @internal `true` if a part extends `Sought`, at any level; else `never`. Searches level by level, so that a class is found by
 * its own methods, before the types that it refers to. Ends when a level adds no type, as with a recursive type, and at the
 * maximum depth of a message.
 */
type Search<Parts, Sought, Level extends string = ""> = true extends (Parts extends Sought ? true : never) ? true
  : Level extends Deepest ? never
  : Parts | PartsOf<Parts> extends infer More ? Same<Parts, More> extends true ? never : Search<More, Sought, `${Level}.`>
  : never;

/** @internal As many dots as `MAX_DEPTH`. */
type Deepest = "................................";

/** @internal Whether both are the same type, and not only assignable to each other. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;

/** @internal The types of items and fields, or what `toJSON` returns. */
type PartsOf<T> = T extends readonly unknown[] ? KnownParts<ItemOf<T>>
  : T extends { toJSON(...args: never): infer Result } ? KnownParts<Result>
  : T extends object ? { [K in keyof T]-?: K extends symbol ? never : KnownParts<FieldOf<T, K>> }[keyof T]
  : never;

/** @internal The types of a union that JSON may change. */
type KnownParts<T> = unknown extends T ? never : T extends Primitive ? never : T;

/** @internal What JSON loses, or cannot represent. */
type Lost = bigint | symbol | ((...args: never) => unknown) | Collection | ArrayBufferView;

/** @internal */
type Collection = ReadonlyMap<unknown, unknown> | ReadonlySet<unknown>;

/**
 * @internal Why a value of the type cannot be sent as JSON, such as ``the bigint at "reply.id" is not JSON, use a string``; else
 * `never`.
 */
export type JsonFault<T, Path extends string> = [Changed<T>] extends [never] ? never
  : [Search<KnownParts<T>, Lost>] extends [never] ? never
  : NearestFault<At<Path, KnownParts<T>>>;

/** @internal The faults at these places, else at the nearest places within them. */
type NearestFault<Places> = [FaultAt<Places>] extends [never] ? NearestFault<PlacesIn<Places>> : FaultAt<Places>;

/** @internal Each type of a union, with its path. */
type At<Path extends string, T> = T extends unknown ? [Path, T] : never;

/** @internal */
type PlacesIn<Place> = Place extends [infer Path extends string, infer T]
  ? T extends readonly unknown[] ? At<`${Path}[]`, PartsOf<T>>
  : T extends Encodes ? At<Path, PartsOf<T>>
  : { [K in keyof T]-?: K extends string | number ? At<`${Path}.${K}`, KnownParts<FieldOf<T, K>>> : never }[keyof T]
  : never;

/** @internal */
type FaultAt<Place> = Place extends [infer Path extends string, infer T extends Lost]
  ? `the ${LostName<T>} at "${Path}" is not JSON, ${Remedy<T>}`
  : never;

/** @internal */
type LostName<T> = T extends bigint ? "bigint"
  : T extends symbol ? "symbol"
  : T extends ReadonlyMap<unknown, unknown> ? "Map"
  : T extends ReadonlySet<unknown> ? "Set"
  : T extends ArrayBufferView ? "typed array"
  : "function";

/** @internal */
type Remedy<T> = T extends bigint | ArrayBufferView ? "use a string" : T extends Collection ? "use an array" : "remove it";

/** @internal The type of a field; without `undefined` if the field is optional. */
type FieldOf<T, K extends keyof T> = undefined extends T[K]
  ? Record<never, never> extends Pick<T, K> ? Exclude<T[K], undefined> : T[K]
  : T[K];

/** @internal The type of the items, without the `undefined` of optional ones in a tuple. */
type ItemOf<T extends readonly unknown[]> = number extends T["length"] ? T[number] : Required<T>[number];

/** @internal Each type of a union by itself. */
type EachOf<T> = T extends undefined ? T
  : [Changed<T>] extends [never] ? T
  : T extends { toJSON(...args: never): infer Result } ? Encoded<Result>
  : Encoded<T>;

/** @internal JSON calls `toJSON` once, so not that of its result. */
type Encoded<T> = unknown extends T ? T
  : T extends Primitive | undefined | void ? T
  : T extends Omitted ? undefined
  : T extends bigint ? never
  : T extends ReadonlyMap<unknown, unknown> | ReadonlySet<unknown> ? Record<never, never>
  : T extends ArrayBufferView ? Record<string, number>
  : T extends readonly unknown[] ? EncodedItems<T>
  : EncodedFields<T>;

/** @internal */
type EncodedItems<T extends readonly unknown[]> = T extends unknown[]
  ? T[number][] extends T ? JsonItemOf<T[number]>[] : { [I in keyof T]: JsonItemOf<T[I]> }
  : readonly T[number][] extends T ? readonly JsonItemOf<T[number]>[]
  : { [I in keyof T]: JsonItemOf<T[I]> };

/** As {@link JsonOf}, for an item of an array, or the data of a publication: `undefined` becomes `null`. */
export type JsonItemOf<T> = [MayOmit<T>] extends [never] ? JsonOf<T> : JsonOf<Exclude<T, Omitted>> | null;

/** @internal */
type EncodedFields<T> = [MayLack<T>] extends [never] ? { [K in keyof T as KeyOf<T, K>]: EncodedField<T[K]> }
  :
    & { [K in keyof T as Exclude<KeyOf<T, K>, MayLack<T>>]: EncodedField<T[K]> }
    & { [K in keyof T as Extract<KeyOf<T, K>, MayLack<T>>]?: EncodedField<T[K]> } extends infer Fields
    ? { [K in keyof Fields]: Fields[K] }
  : never;

/** @internal */
type EncodedField<T> = [MayOmit<T>] extends [never] ? JsonOf<T> : JsonOf<Exclude<T, Omitted>>;

/** @internal */
type MayOmit<T> = unknown extends T ? never : Extract<T, Omitted>;

/** @internal The name of a field, unless JSON always omits the field. */
type KeyOf<T, K extends keyof T> = K extends symbol ? never
  : [FieldOf<T, K>] extends [never] ? K
  : [Exclude<FieldOf<T, K>, Exclude<Omitted, undefined>>] extends [never] ? never
  : K;

/** @internal The required fields that JSON may omit. */
type MayLack<T> = { [K in keyof T]-?: [MayOmit<FieldOf<T, K>>] extends [never] ? never : K }[keyof T];
