/** Calls while `globalThis` has these values; `undefined`: as if it had none. Nothing else runs meanwhile, because the call is synchronous. */
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
