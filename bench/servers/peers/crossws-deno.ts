import crossws from "crossws/adapters/deno";
import { hooks, sync } from "./crossws-hooks.ts";

const adapter = crossws({ hooks, ...await sync() });
Deno.serve(
  { port: 0, hostname: "127.0.0.1", onListen: ({ port }) => console.log(`PORT ${port}`) },
  (request, info) => adapter.handleUpgrade(request, info),
);
