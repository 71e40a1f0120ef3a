declare namespace Cloudflare {
  interface GlobalProps {
    mainModule: typeof import("../src/worker.ts");
  }
  interface Env {
    BOARD: DurableObjectNamespace<import("../src/worker.ts").Board>;
    HALL: DurableObjectNamespace<import("../src/hall.ts").Hall>;
    ORDERS: Queue<import("../src/contract.ts").Order>;
  }
}
