import process from "node:process";
import { serve } from "../../src/serve/serve.ts";
import { inspector } from "../../src/inspector/inspector.ts";
import { createNewsroom } from "../app.ts";
import { readFile } from "../read-file.ts";

// On this machine alone unless HOST says otherwise: the passwords are on the page.
const { HOST = "127.0.0.1", PORT = "3000", JWT_SECRET } = process.env;
const { app } = createNewsroom({ readFile, secret: JWT_SECRET, inspector });

await serve(app, { port: Number(PORT), hostname: HOST });
