// `using` goes by symbols that a target library older than esnext does not declare. A declaration that named them would not compile
// there, and JSR lets no file ask for the library. So the methods are there for who has the symbols.
type Method<Name extends string, Result> = SymbolConstructor extends { readonly [N in Name]: infer Key extends symbol }
  ? { [K in Key]: () => Result }
  : unknown;

/** May be declared with `using`. */
export type Disposes = Method<"dispose", void>;

/** May be declared with `await using`. */
export type DisposesAsync = Method<"asyncDispose", Promise<void>>;

/** Makes the object end at the end of the block that it was declared in. */
export function disposeBy(target: object, end: () => unknown): void {
  // React Native and older browsers have no such symbols.
  const { dispose, asyncDispose } = Symbol as { dispose?: symbol; asyncDispose?: symbol };
  if (dispose && asyncDispose) Object.assign(target, { [dispose]: () => void end(), [asyncDispose]: end });
}
