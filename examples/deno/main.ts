import process from "node:process";
import { createNewsroom } from "../app.ts";
import { readFile } from "../read-file.ts";

const { HOST = "0.0.0.0", PORT = "3000", JWT_SECRET } = process.env;
const { app } = createNewsroom({ readFile, secret: JWT_SECRET });

// Deno has it; the cast is for checking this file where Deno's types are not installed.
const { Deno } = globalThis as unknown as { Deno: { serve(options: object, handler: typeof app.fetch): void } };
Deno.serve({ port: Number(PORT), hostname: HOST }, app.fetch);
