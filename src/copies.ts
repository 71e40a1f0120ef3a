/** Where the package was loaded from in this process, and how often from there. Registered, so that all copies share it. */
const copies: Map<string, number> = registry()[Symbol.for("noroshi.copies")] ??= new Map();
// Absent where a bundler made a classic script of the module.
const url = import.meta.url ?? "a bundle";
copies.set(url, (copies.get(url) ?? 0) + 1);

/** The sentence that names the copies, for the error of what belongs to one copy only; empty where there is one. */
export function describeCopies(): string {
  const places = [...copies].map(([url, times]) => times === 1 ? url : `${url} (${times} times)`);
  if (places.length === 1 && copies.get(url) === 1) return "";
  return `. The package is loaded more than once, and each copy has its own controllers: ${places.join(", ")}`;
}

function registry(): { [key: symbol]: Map<string, number> | undefined } {
  return globalThis as { [key: symbol]: Map<string, number> | undefined }; // Nothing else writes under the symbol.
}
