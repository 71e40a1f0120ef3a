/** The project behind `noroshi/serve`, on Bun, Deno and Node. */
import process from "node:process";
import type { PayloadSchema } from "../../mod.ts";
import { serve } from "../../src/serve/serve.ts";
import { createNoroshi, STRICT } from "./noroshi-app.ts";

/** The schema of the echo by the library, loaded only where it is named. */
const SCHEMAS: Record<string, () => Promise<PayloadSchema<unknown, { text: string }>>> = {
  zod: async () => {
    const { z } = await import("zod");
    return z.object({ text: z.string() });
  },
  "zod-checked": async () => {
    const { z } = await import("zod");
    return z.object({ text: z.string().refine((text) => text !== "") });
  },
  arktype: async () => (await import("arktype")).type({ text: "string" }),
};

const [library = "", observed] = process.argv.slice(2);
const isStrict = observed === "strict";
const { app, controller } = createNoroshi(await SCHEMAS[library]?.(), isStrict ? STRICT : undefined);
// Loaded only where it is named.
if (observed !== undefined && !isStrict) (await import("./observed.ts")).OBSERVE[observed]!(controller);

await serve(app, {
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }) => console.log(`PORT ${port}`),
});
