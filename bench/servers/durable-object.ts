/** A Durable Object under Miniflare: the project, or the hibernation API and a loop of `send`. `durable-object.ts noroshi|raw` */
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { startWorker } from "../../scripts/worker.ts";

const file = process.argv[2] === "raw" ? "worker-raw.ts" : "worker-noroshi.ts";
const { port } = await startWorker(join(dirname(fileURLToPath(import.meta.url)), file), "Bench");
console.log(`PORT ${port}`);
