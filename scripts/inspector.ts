/** Builds the page of the inspector into `src/inspector/assets.ts`: `npm run build:inspector`. Its users have no build step. */
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Where the built page is. */
export const assetsPath: string = join(root, "src/inspector/assets.ts");

/** Returns the text of `src/inspector/assets.ts`. */
export async function buildAssets(): Promise<string> {
  const { build, stop } = await import("esbuild");
  const bundle = async (entry: string) => {
    const { outputFiles: [file] } = await build({
      entryPoints: [join(root, "src/inspector/page", entry)],
      absWorkingDir: root,
      bundle: true,
      minify: true,
      format: "esm",
      target: ["es2022", "firefox115", "safari16.4"],
      charset: "ascii",
      legalComments: "none",
      write: false,
    });
    return file!.text.trim(); // One for each entry.
  };
  try {
    const [script, style] = [await bundle("main.ts"), await bundle("style.css")];
    const head = "// Built from page/ by `npm run build:inspector`: change that, not this.\n";
    return `${head}\n/** The script of the page. */\nexport const script: string = ${JSON.stringify(script)};\n\n` +
      `/** Its style. */\nexport const style: string = ${JSON.stringify(style)};\n`;
  } finally {
    await stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(assetsPath, await buildAssets());
