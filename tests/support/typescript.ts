/** The options with which Node runs a TypeScript file. */
export const TYPESCRIPT: readonly string[] = ["--import", new URL("../../scripts/typescript.mjs", import.meta.url).href];
