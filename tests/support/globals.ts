/** Replaces properties of `globalThis` during a synchronous call, so that no other code sees them. With `undefined` a property counts as absent. */
export function withGlobals<Result>(values: Readonly<Record<string, unknown>>, call: () => Result): Result {
  const before = Object.keys(values).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  for (const [name, value] of Object.entries(values)) {
    Object.defineProperty(globalThis, name, { configurable: true, writable: true, value });
  }
  try {
    return call();
  } finally {
    for (const [name, descriptor] of before) {
      Reflect.deleteProperty(globalThis, name);
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
    }
  }
}
