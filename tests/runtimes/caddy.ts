import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { findProgram } from "../support/brokers.ts";

/** A real Caddy, in a folder of its own, with certificates of its own. */
export class Caddy {
  readonly folder: string = mkdtempSync(join(tmpdir(), "noroshi-caddy-"));
  #child: ChildProcess | undefined;

  /** The certificate that signs those of its sites, once it has started. */
  get certificate(): string {
    return readFileSync(join(this.folder, "caddy/pki/authorities/local/root.crt"), "utf8");
  }

  /** Starts it with a Caddyfile; resolves once it serves. */
  async start(caddyfile: string): Promise<void> {
    // No port but those of the sites, and no certificate of an authority outside.
    const global = "{\n\tdebug\n\tadmin off\n\tauto_https disable_redirects\n\tlocal_certs\n\tskip_install_trust\n}\n";
    const path = join(this.folder, "Caddyfile");
    writeFileSync(path, `${global}${caddyfile}`);
    // The caller has looked whether it is there.
    const child = spawn(findProgram("caddy")!, ["run", "--config", path, "--adapter", "caddyfile"], {
      env: { ...process.env, HOME: this.folder, XDG_DATA_HOME: this.folder, XDG_CONFIG_HOME: this.folder },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      let output = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        output += text;
        // It refuses a handshake until it has cached the certificate that it obtained, which only the log for debugging tells.
        if (/"serving initial configuration"/.test(output) && /"added certificate to cache"/.test(output)) resolve();
      });
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`Caddy did not start: ${output}`)));
    });
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
