import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
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
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${name};`).join("\n");
    const config =
      `daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr notice;\nevents { worker_connections 1024; }\n` +
      `http {\naccess_log off;\n${temporary}\n${http}\n}\n`;
    writeFileSync(join(this.folder, "nginx.conf"), config);
    // The caller has looked whether it is there.
    const child = spawn(findProgram("nginx")!, ["-p", this.folder, "-c", "nginx.conf", "-e", "stderr"], {
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

  /** Makes a certificate and its key in the folder. */
  createCertificate(name: string): void {
    const { status, stderr } = spawnSync(findProgram("openssl")!, [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
      ...["-subj", `/CN=${name}`, "-keyout", join(this.folder, "key.pem"), "-out", join(this.folder, "certificate.pem")],
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
