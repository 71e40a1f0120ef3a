import type { Sql } from "../engines/sqlite-histories.ts";
import type { HibernatingSocket } from "./hibernating-transport.ts";

/** The part of a Durable Object's state that `createWebSocketObject` uses. */
export interface WebSocketObjectState {
  /** Accepts a socket that may hibernate. */
  acceptWebSocket(socket: HibernatingSocket): void;
  /** The object's open sockets. */
  getWebSockets(): HibernatingSocket[];
  /** Sets what workerd answers without waking the object. */
  setWebSocketAutoResponse(pair?: unknown): void;
  /** The object's storage and alarm. */
  readonly storage: {
    /** Sets the object's one alarm, in ms since 1970. */
    setAlarm(time: number): Promise<void>;
    /** Throws on use if the class has no SQLite storage. */
    readonly sql?: Sql;
  };
}

/** `DurableObject` of `cloudflare:workers`, as `@cloudflare/workers-types` declares it. */
export declare abstract class DurableObjectBase<State, Env> {
  /** The brand by which `DurableObjectNamespace` accepts a class. */
  readonly __DURABLE_OBJECT_BRAND: never;
  /** The object's state. */
  protected readonly ctx: State;
  /** The bindings of the Worker. */
  protected readonly env: Env;
  /** Called by workerd. */
  constructor(ctx: State, env: Env);
}

/**
 * `DurableObject` on workerd. Elsewhere a class with the same fields: the module is also imported for its types, and by tests.
 */
export const DurableObject: typeof DurableObjectBase = await loadDurableObject();

async function loadDurableObject(): Promise<typeof DurableObjectBase> {
  try {
    // Bundlers leave an import within `try` to the runtime. The name is a literal, because Miniflare refuses computed ones.
    // @ts-ignore: only the compiler of a Worker finds the module.
    const { DurableObject } = await import("cloudflare:workers") as { DurableObject: typeof DurableObjectBase }; // As workerd has it.
    return DurableObject;
  } catch {
    // Only workerd has the module, and there the import cannot fail. This class has the same fields; the brand exists in types
    // only.
    return class {
      ctx: unknown;
      env: unknown;
      constructor(ctx: unknown, env: unknown) {
        this.ctx = ctx;
        this.env = env;
      }
    } as unknown as typeof DurableObjectBase;
  }
}
