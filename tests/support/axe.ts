/** axe-core, on a page as everybody may see it. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults, RunOptions } from "axe-core";
import type { Page } from "playwright-core";

const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const SIZES = [{ width: 1180, height: 820 }, { width: 360, height: 740 }] as const;

/** What axe finds wrong with the page, in light and dark, on a desk and on a phone. The page is as it was afterwards. */
export async function findViolations(page: Page): Promise<string[]> {
  const size = page.viewportSize() ?? SIZES[0];
  const found: string[] = [];
  await page.evaluate(source);
  for (const colorScheme of ["light", "dark"] as const) {
    // Without animations, in whose middle a colour is another one.
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    for (const viewport of SIZES) {
      await page.setViewportSize(viewport);
      const { violations } = await page.evaluate((): Promise<AxeResults> =>
        // The source has set it.
        (globalThis as unknown as { axe: { run(options: RunOptions): Promise<AxeResults> } }).axe.run({
          resultTypes: ["violations"],
        })
      );
      const look = `${colorScheme}, ${viewport.width} px`;
      found.push(...violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${look}: ${id}: ${html}`)));
    }
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
  await page.setViewportSize(size);
  return found;
}
