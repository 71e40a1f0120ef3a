// TypeScript without `lib: esnext` does not know `Symbol.dispose`, and JSR does not let a file request the lib. So these types have the
// method only if the symbol is declared.
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
  const { dispose, asyncDispose } = Symbol as unknown as { dispose: symbol; asyncDispose: symbol }; // Each may be absent at run time.
  withoutUnnamed(Object.assign(target, { [dispose]: () => void end(), [asyncDispose]: end }));
}

/** Removes the method for a symbol that the platform lacks, such as React Native and older browsers. Its name is "undefined". */
export function withoutUnnamed<Target extends object>(target: Target): Target {
  delete (target as { undefined?: unknown }).undefined;
  return target;
}
