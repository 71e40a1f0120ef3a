/** The newsroom behind an nginx that refuses upgrades: `npm run demo:fallback`. Needs nginx. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { serve } from "../../src/serve/serve.ts";
import { createNewsroom } from "../app.ts";
import { Program } from "../cluster/program.ts";
import { readFile } from "../read-file.ts";

const { HOST = "127.0.0.1", PORT = "3000", JWT_SECRET } = process.env;
const { app } = createNewsroom({ readFile, secret: JWT_SECRET });
const { port } = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });

// The configuration of a proxy that knows nothing of WebSockets: Upgrade is not passed on.
const folder = mkdtempSync(join(tmpdir(), "newsroom-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`);
writeFileSync(
  join(folder, "nginx.conf"),
  `events {}
http {
  access_log off;
  ${temporary.join("\n  ")}
  server {
    listen ${HOST}:${PORT};
    location / {
      proxy_pass http://127.0.0.1:${port};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
    }
  }
}
`,
);
const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
const nginx = folders.map((folder) => join(folder, "nginx")).find((path) => existsSync(path));
if (!nginx) {
  console.error("Cannot start: nginx is not installed (on Debian: apt-get install nginx)");
  process.exit(1);
}
const global = `daemon off; master_process off; pid ${folder}/nginx.pid; error_log stderr notice;`;
const program = new Program({
  name: "nginx",
  command: [nginx, "-p", folder, "-c", "nginx.conf", "-e", "stderr", "-g", global],
  ready: /\[notice\].*: nginx\/\d/, // Its sockets listen before it says its version.
  hidden: /\[notice\]/,
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void program.stop().then(() => process.exit(0)));
await program.start();
console.log(`\nThe newsroom is at http://${HOST}:${PORT}/`);
console.log("nginx refuses every upgrade: the page goes over server-sent events and POST.\n");
