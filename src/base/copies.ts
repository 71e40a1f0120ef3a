/** By URL: how often it has loaded the package in this process. In the registry of symbols, so that all copies share it. */
const copies: Map<string, number> = registry()[Symbol.for("noroshi.copies")] ??= new Map();
// Absent if a bundler made the module a classic script.
const url = import.meta.url ?? "a bundle";
copies.set(url, (copies.get(url) ?? 0) + 1);

/** Lists the copies, for errors about an object of another copy; empty if there is only one copy. */
export function describeCopies(): string {
  const urls = [...copies].map(([url, times]) => times === 1 ? url : `${url} (${times} times)`);
  if (urls.length === 1 && copies.get(url) === 1) return "";
  return `. The package is loaded more than once, and each copy has its own controllers: ${urls.join(", ")}`;
}

function registry(): { [key: symbol]: Map<string, number> | undefined } {
  return globalThis as { [key: symbol]: Map<string, number> | undefined }; // Only this module writes it.
}
