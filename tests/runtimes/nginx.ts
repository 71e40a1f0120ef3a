import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram } from "../support/brokers.ts";

/** A real nginx, in a folder of its own. */
export class Nginx {
  /** Holds its files, and whatever a test puts there. */
  readonly folder: string = mkdtempSync(join(tmpdir(), "noroshi-nginx-"));
  #child: ChildProcess | undefined;

  /**
   * Starts it; resolves once it listens.
   *
   * @param http what stands in the block `http`.
   */
  async start(http: string): Promise<void> {
    await this.startWith(`events { worker_connections 1024; }\nhttp {\n${http}\n}\n`);
  }

  /**
   * Starts it with a whole file, of which `http {` is a line; resolves once it listens. It runs as one process, logs no requests, and
   * keeps its files in its folder.
   */
  async startWith(config: string): Promise<void> {
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${name};`).join("\n");
    writeFileSync(join(this.folder, "nginx.conf"), config.replace(/^http \{$/m, `http {\naccess_log off;\n${temporary}`));
    const global = "daemon off; master_process off; pid nginx.pid; error_log stderr notice;";
    // The caller has looked whether it is there.
    const child = spawn(findProgram("nginx")!, ["-p", this.folder, "-c", "nginx.conf", "-e", "stderr", "-g", global], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      let output = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        output += text;
        // Its sockets listen before it says its version.
        if (/\[notice\].*: nginx\/\d/.test(output)) resolve();
      });
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`nginx did not start: ${output}`)));
    });
  }

  /** Makes a certificate and its key in a folder below its own. */
  createCertificate(name: string, below = "."): void {
    const folder = join(this.folder, below);
    mkdirSync(folder, { recursive: true });
    const { status, stderr } = spawnSync(findProgram("openssl")!, [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
      ...["-subj", `/CN=${name}`, "-keyout", join(folder, "key.pem"), "-out", join(folder, "certificate.pem")],
    ]);
    if (status !== 0) throw new Error(`openssl failed: ${stderr}`);
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child && child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
