/**
 * The type without `readonly`. A field that only one class may write is `readonly` in the interface that the others use, and that
 * class uses this type: TypeScript accepts an object with a `readonly` field where a writable one is expected.
 */
export type Writable<T> = { -readonly [Key in keyof T]: T[Key] };
