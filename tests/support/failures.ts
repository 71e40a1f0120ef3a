/** The ways in which a callback of an application can fail, as values: what it throws, rejects with, or returns. */
import { WebSocketError } from "../../src/protocol/errors.ts";

/** One way to fail, and how it shows. */
export interface Failure {
  readonly name: string;
  /** Throws, or returns what the callback returns. Another object each time. */
  readonly fail: () => never;
  /** `thrown`: it throws or rejects. `returned`: a value that is wrong for most. `pending`: a promise that never settles. */
  readonly kind: "thrown" | "returned" | "pending";
  /** It throws, or returns what is no promise. */
  readonly isSynchronous: boolean;
  /** The code, where it is a `WebSocketError` that can be shown. */
  readonly code?: string;
}

const refuse = (): never => {
  throw new Error("A trap of the application threw");
};

/** Throws whatever is done with it. */
function hostile(target: object = {}): object {
  const handler = Object.fromEntries(
    [
      "apply",
      "construct",
      "defineProperty",
      "deleteProperty",
      "get",
      "getOwnPropertyDescriptor",
      "getPrototypeOf",
      "has",
      "isExtensible",
      "ownKeys",
      "preventExtensions",
      "set",
      "setPrototypeOf",
    ].map((trap) => [trap, refuse]),
  );
  return new Proxy(target, handler);
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

function cycle(): Record<string, unknown> {
  const value: Record<string, unknown> = {};
  value["self"] = value;
  return value;
}

/** An error that cannot be read. */
function unreadable(): Error {
  const error = new Error("x");
  for (const name of ["message", "stack", "name", "cause"]) Object.defineProperty(error, name, { get: refuse });
  return error;
}

const unwritable = { toJSON: refuse };

/** As another copy of the package brands its errors, with fields that throw. */
function foreign(): object {
  return Object.defineProperties({}, {
    [Symbol.for("noroshi.error")]: { value: true },
    type: { get: refuse },
    code: { get: refuse },
    message: { get: refuse },
  });
}

class Mute extends WebSocketError {
  override toJSON(): never {
    return undefined as never;
  }
}

class Loud extends WebSocketError {
  override toJSON(): never {
    return refuse();
  }
}

const shown = (details: Record<string, unknown>, uid?: unknown): WebSocketError =>
  new WebSocketError("area", "NOT_TODAY", "Not today", { details, ...(uid === undefined ? {} : { uid: uid as string }) });

const thrown: Record<string, () => unknown> = {
  "an Error": () => new Error("boom"),
  "a Proxy whose traps throw": () => hostile(),
  "a Proxy of an Error whose traps throw": () => hostile(new Error("boom")),
  "a Proxy of a WebSocketError whose traps throw": () => hostile(shown({})),
  "a function whose traps throw": () => hostile(() => {}),
  "a revoked Proxy": revoked,
  "an Error whose getters throw": unreadable,
  "an Error whose prototype throws": () => Object.setPrototypeOf(new Error("x"), hostile()),
  "an object without a prototype": () => Object.create(null),
  "an object whose toString throws": () => ({ toString: refuse, [Symbol.toPrimitive]: refuse }),
  "an Error whose cause cannot be shown": () => new Error("x", { cause: Object.create(null) }),
  "an error of another copy whose getters throw": foreign,
  "undefined": () => undefined,
  "null": () => null,
  "a BigInt": () => 1n,
  "a symbol": () => Symbol("x"),
  "an error with a BigInt in place of its code": () => new WebSocketError("area", 1n as never, "x"),
};

const shownErrors: Record<string, () => WebSocketError> = {
  "a WebSocketError": () => shown({ retry: 1 }),
  "a WebSocketError whose details hold a BigInt": () => shown({ n: 1n }),
  "a WebSocketError whose details are a cycle": () => shown(cycle()),
  "a WebSocketError whose details throw in toJSON": () => shown({ unwritable }),
  "a WebSocketError whose details throw when they are read": () => shown(hostile() as Record<string, unknown>),
  "a WebSocketError whose uid is a BigInt": () => shown({}, 1n),
  "a WebSocketError whose toJSON is undefined": () => new Mute("area", "NOT_TODAY", "Not today"),
  "a WebSocketError whose toJSON throws": () => new Loud("area", "NOT_TODAY", "Not today"),
};

const returned: Record<string, () => unknown> = {
  "a value that throws in toJSON": () => ({ unwritable }),
  "a BigInt": () => 1n,
  "an object with a BigInt": () => ({ n: 1n }),
  "a cycle": cycle,
  "a symbol": () => Symbol("x"),
  "a function": () => () => {},
  "a Proxy whose traps throw": () => hostile(),
  "a value whose getters throw": () => Object.defineProperty({}, "a", { get: refuse, enumerable: true }),
  "a promise of a value": () => Promise.resolve({ n: 1n }),
};

const rejecting: Record<string, () => unknown> = {
  "rejects with an Error": () => Promise.reject(new Error("later")),
  "rejects some turns later": async () => {
    for (let n = 0; n < 3; n++) await null;
    throw new Error("later");
  },
  "rejects with a Proxy whose traps throw": () => Promise.reject(hostile()),
  "rejects with undefined": () => Promise.reject(undefined),
  "rejects with a symbol": () => Promise.reject(Symbol("x")),
  "returns a thenable that throws in then": () => ({ then: refuse }),
  "returns a thenable whose then cannot be read": () => Object.defineProperty({}, "then", { get: refuse }),
  "returns a thenable that rejects twice and throws": () => ({
    then(_resolve: unknown, reject: (reason: unknown) => void) {
      reject(new Error("first"));
      reject(new Error("second"));
      refuse();
    },
  }),
  "returns a promise whose constructor throws": () => Object.defineProperty(Promise.resolve(), "constructor", { get: refuse }),
};

const throwing = (make: () => unknown) => (): never => {
  throw make();
};

/** All of them. */
export const FAILURES: readonly Failure[] = [
  ...Object.entries(thrown).map(([name, make]): Failure => ({
    name: `throws ${name}`,
    fail: throwing(make),
    kind: "thrown",
    isSynchronous: true,
  })),
  ...Object.entries(shownErrors).flatMap(([name, make]): Failure[] => [
    { name: `throws ${name}`, fail: throwing(make), kind: "thrown", isSynchronous: true, code: "NOT_TODAY" },
    {
      name: `rejects with ${name}`,
      fail: () => Promise.reject(make()) as never,
      kind: "thrown",
      isSynchronous: false,
      code: "NOT_TODAY",
    },
  ]),
  ...Object.entries(rejecting).map(([name, fail]): Failure => ({
    name,
    fail: fail as () => never,
    kind: "thrown",
    isSynchronous: false,
  })),
  ...Object.entries(returned).map(([name, fail]): Failure => ({
    name: `returns ${name}`,
    fail: fail as () => never,
    kind: "returned",
    isSynchronous: !name.includes("promise"),
  })),
  { name: "never settles", fail: () => new Promise(() => {}) as never, kind: "pending", isSynchronous: false },
];
