/**
 * The type without `readonly`. Used by the one class that may write a field which is `readonly` for all others: TypeScript accepts an
 * object with a `readonly` field where a writable one is expected.
 */
export type Writable<T> = { -readonly [Key in keyof T]: T[Key] };
