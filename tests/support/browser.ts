import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import type { Browser, LaunchOptions } from "playwright-core";

function findBrowser(): string | undefined {
  if (process.env["CHROMIUM"]) return process.env["CHROMIUM"]; // One that was asked for by name and is not there must fail, not skip.
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const onPath = (process.env["PATH"] ?? "").split(delimiter).flatMap((folder) => names.map((name) => join(folder, name)));
  return ["/usr/bin/chromium", ...onPath].find((path) => existsSync(path));
}

/** A browser that is installed, if there is one. */
export const executablePath: string | undefined = findBrowser();

/** Why the tests in a browser are skipped, or `false`. */
export const noBrowser: string | false = executablePath
  ? false
  : "no browser: install Chromium or Chrome, or name one in CHROMIUM";

/** Features of Chromium that Playwright switches off. The last flag of a name replaces those before it, so that they are repeated here. */
const OFF_BY_PLAYWRIGHT = [
  ...[
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
  ],
  ...["HttpsFirstBalancedModeAutoEnable", "HttpsUpgrades", "LensOverlay", "MediaRouter", "NetworkTimeServiceQuerying"],
  ...["OptimizationHints", "PaintHolding", "PreconnectToSearch", "TcpPortRandomizationWin", "ThirdPartyStoragePartitioning"],
];

/** What Chromium prepares for a person: the two pages of its address bar, which each window loads, and a process for the next page. */
const FOR_PERSONS = ["WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess"];

/** What keeps it from doing anything of its own. */
export const QUIET: string[] = [
  `--disable-features=${[...OFF_BY_PLAYWRIGHT, ...FOR_PERSONS].join()}`,
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** After this many ms a step in the browser is treated as hanging: a busy machine takes many times the seconds of a free one. */
const HANGS = 240_000;

/** Starts the browser that is installed. */
export async function launchBrowser(options: LaunchOptions = {}): Promise<Browser> {
  const { chromium } = await import("playwright-core");
  // Tests that need a browser skip where there is none.
  const browser = await chromium.launch({ executablePath: executablePath!, args: QUIET, timeout: HANGS, ...options });
  browser.on("context", (context) => context.setDefaultTimeout(HANGS));
  return browser;
}
