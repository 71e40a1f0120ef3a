import { copyFile, mkdir, readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import process from "node:process";
import { start, type Tools } from "../docs/projects.ts";

/** What a Dockerfile makes. */
export interface Image {
  /** Its working directory, on this machine. */
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly user: string | undefined;
  readonly command: readonly string[];
  readonly healthcheck: readonly string[];
}

/**
 * Carries out a Dockerfile of one stage without its base image: the files of `context` are copied to `folder`, and its commands run there.
 *
 * @throws {Error} on an instruction that it does not know.
 */
export async function playDockerfile(path: string, context: string, folder: string, tools: Tools): Promise<Image> {
  await mkdir(folder, { recursive: true });
  const env: Record<string, string> = {};
  let user: string | undefined;
  let [command, healthcheck]: [string[], string[]] = [[], []];
  const text = (await readFile(path, "utf8")).replace(/\\\n/g, "");
  for (const line of text.split("\n").filter((line) => line !== "" && !line.startsWith("#"))) {
    const [, instruction = "", rest = ""] = line.match(/^(\w+)\s+(.*)$/) ?? [];
    switch (instruction) {
      case "FROM":
      case "EXPOSE":
      case "WORKDIR":
        break;
      case "ENV": {
        const [name = "", value = ""] = rest.split("=");
        env[name] = value;
        break;
      }
      case "COPY":
        for (const name of rest.split(" ").slice(0, -1)) await copyFile(join(context, name), join(folder, name));
        break;
      case "RUN":
        await start(rest, folder, { path: [], env: environmentOf({ env }, tools) }).ended;
        break;
      case "USER":
        user = rest;
        break;
      case "HEALTHCHECK":
        healthcheck = JSON.parse(rest.slice(rest.indexOf("[")));
        break;
      case "CMD":
        command = JSON.parse(rest);
        break;
      default:
        throw new Error(`Cannot play ${path}: it has the instruction "${instruction}"`);
    }
  }
  return { folder, env, user, command, healthcheck };
}

/** The environment of a container of the image. */
export function environmentOf(
  { env }: Pick<Image, "env">,
  { path }: Pick<Tools, "path">,
  more: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const inherited = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return { ...Object.fromEntries(inherited), ...env, ...more, PATH: [...path, process.env["PATH"]].join(delimiter) };
}
