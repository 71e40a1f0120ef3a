/** What every server of `streams.ts` sends: the same items, made in the same way. */

/** Time between two items of a stream, in ms. */
const PERIOD = 20;

/** Bytes of an item as JSON. */
const ITEM_BYTES = 60;

const waiting = Array.from({ length: PERIOD }, (): (() => void)[] => []);
let started = 0;
let now = 0;

// One timer for all streams: what a timer costs is not what is compared.
const start = performance.now();
setInterval(() => {
  for (const target = Math.floor(performance.now() - start); now < target;) {
    for (const resume of waiting[++now % PERIOD]!.splice(0)) resume(); // As long as the period.
  }
}, 1);

/** Item `seq` of a stream, with the time at which it was made. */
export function itemOf(seq: number): { n: number; at: number; text: string } {
  // As many digits each time, so that no item is longer than another.
  const at = Math.round((performance.timeOrigin + performance.now()) * 1_000) / 1_000;
  const item = { n: seq, at, text: "" };
  item.text = "x".repeat(Math.max(0, ITEM_BYTES - `{"n":${seq},"at":${at},"text":""}`.length));
  return item;
}

/** 50 items a second, without an end. */
export async function* paced(): AsyncGenerator<ReturnType<typeof itemOf>, void> {
  const slot = started++ % PERIOD; // Each ms has as many streams.
  for (let seq = 0;; seq++) {
    await new Promise<void>((resume) => waiting[slot]!.push(resume)); // Within the period.
    yield itemOf(seq);
  }
}

/** Items as fast as they are taken. */
export async function* flat(): AsyncGenerator<ReturnType<typeof itemOf>, void> {
  for (let seq = 0;; seq++) yield itemOf(seq);
}

/** Calls back with 50 items a second, the same for all who listen. */
export function publishItems(publish: (item: ReturnType<typeof itemOf>) => void): void {
  let seq = 0;
  setInterval(() => publish(itemOf(seq++)), PERIOD);
}
