/**
 * Options of a client that a busy machine may not disturb: a pause of seconds would look to it like a sleep, after which it gives a server
 * half a second. What hangs ends by the timeout.
 */
export const PATIENT = { heartbeat: 0, timeout: 120_000, requestTimeout: 120_000 } as const;
