/** nginx and Caddy with the files of `examples/deploy/`. Replaced: names and ports. */
import { readFileSync } from "node:fs";
import type { LookupFunction } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Caddy } from "../runtimes/caddy.ts";
import { Nginx } from "../runtimes/nginx.ts";
import { freePort } from "../support/brokers.ts";

const recipe = (name: string) =>
  readFileSync(join(dirname(fileURLToPath(import.meta.url)), "../../examples/deploy", name), "utf8");

/** Name of the site in the files. */
export const SITE = "chat.example.com";

/** A proxy in front of nodes. */
export interface Front {
  readonly port: number;
  readonly certificate: string;
  stop(): Promise<void>;
}

/**
 * Starts a proxy with its file of the recipes, in front of nodes with these ports.
 *
 * @param change of the file.
 */
export async function startFront(
  proxy: "nginx" | "Caddy",
  nodes: readonly number[],
  change: (text: string) => string = (text) => text,
): Promise<Front> {
  const port = await freePort();
  const addressed = (text: string) => change(text).replaceAll(/\bchat-(\d):3000\b/g, (_, node) => `127.0.0.1:${nodes[node - 1]}`);
  if (proxy === "Caddy") {
    const caddy = new Caddy();
    await caddy.start(addressed(recipe("Caddyfile")).replace(`${SITE} {`, `${SITE}:${port} {`));
    return { port, certificate: caddy.certificate, stop: () => caddy.stop() };
  }
  const nginx = new Nginx();
  nginx.createCertificate(SITE, "certificates");
  const http = await freePort();
  await nginx.startWith(
    addressed(recipe("nginx.conf")).replace("listen 80;", `listen 127.0.0.1:${http};`).replace(
      "listen 443 ",
      `listen 127.0.0.1:${port} `,
    ),
  );
  const certificate = readFileSync(join(nginx.folder, "certificates/certificate.pem"), "utf8");
  return { port, certificate, stop: () => nginx.stop() };
}

/** Finds every name at this machine. */
export const toThisMachine: LookupFunction = (_name, options, callback) => {
  if (options.all) callback(null, [{ address: "127.0.0.1", family: 4 }]);
  else callback(null, "127.0.0.1", 4);
};
