/** The project behind `noroshi/serve`, on Bun, Deno and Node. */
import { serve } from "../../src/serve/serve.ts";
import { createNoroshi } from "./noroshi-app.ts";

await serve(createNoroshi().app, {
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }) => console.log(`PORT ${port}`),
});
