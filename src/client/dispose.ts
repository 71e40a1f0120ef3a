// TypeScript before `lib: esnext` does not know `Symbol.dispose`, and JSR does not let a file request the lib. A declaration that names
// the symbol would not compile there, so these types have the method only where the symbol is declared.
/** @internal */
type Method<Name extends string, Result> = SymbolConstructor extends { readonly [N in Name]: infer Key extends symbol }
  ? { [K in Key]: () => Result }
  : unknown;

/** Works with `using`. */
export type Disposes = Method<"dispose", void>;

/** Works with `await using`. */
export type DisposesAsync = Method<"asyncDispose", Promise<void>>;

/** Adds the methods that `using` and `await using` call. */
export function disposeBy(target: object, end: () => unknown): void {
  // React Native and older browsers do not have these symbols.
  const { dispose, asyncDispose } = Symbol as { dispose?: symbol; asyncDispose?: symbol };
  if (dispose && asyncDispose) Object.assign(target, { [dispose]: () => void end(), [asyncDispose]: end });
}

/** Removes the method of `Symbol.asyncIterator` where the platform has no such symbol, as React Native: it would be named "undefined". */
export function withoutUnnamed<Target extends object>(target: Target): Target {
  if (!Symbol.asyncIterator) Reflect.deleteProperty(target, "undefined");
  return target;
}
