/** The name of a relay: the name of its home object, `#`, and its number. */
const RELAY = /^([^]*)#(\d+)$/;

/** The home object of a relay, and the relay's number; `undefined` for a home object. */
export function relayOf(name: string): { home: string; number: number } | undefined {
  const [, home, number] = RELAY.exec(name) ?? [];
  return home === undefined ? undefined : { home, number: Number(number) };
}
