/** Maximum time of sending before inbound messages are handled again, in ms. */
export const SLICE_MS = 5;

/** Calls back after the events that have arrived together with the current one. In the same turn of the event loop, if the runtime can. */
export const afterTurn = (callback: () => void): void => {
  // workerd has no `setImmediate`, so it is looked up at each call.
  if (typeof setImmediate === "function") setImmediate(callback);
  else setTimeout(callback, 0);
};
