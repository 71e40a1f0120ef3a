/**
 * The type without `readonly`. A field that one class alone may write is `readonly` in the interface that the others see, and that class
 * takes this type: what is `readonly` may be passed for what is not.
 */
export type Writable<T> = { -readonly [Key in keyof T]: T[Key] };
