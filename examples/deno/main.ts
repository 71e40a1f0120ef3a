import process from "node:process";
import { serve } from "../../src/serve/serve.ts";
import { createNewsroom } from "../app.ts";
import { readFile } from "../read-file.ts";

const { HOST = "0.0.0.0", PORT = "3000", JWT_SECRET } = process.env;
const { app } = createNewsroom({ readFile, secret: JWT_SECRET });

await serve(app, { port: Number(PORT), hostname: HOST });
