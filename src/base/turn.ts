/** Inbound messages are handled again after this many ms of sending. */
export const SLICE_MS = 5;

/** Calls back once what arrived together with the current event has been handled: in the same turn of the event loop where the runtime can. */
export const afterTurn = (callback: () => void): void => {
  // workerd has no setImmediate. Looked up on each call: a global of another runtime must not keep the module from loading.
  if (typeof setImmediate === "function") setImmediate(callback);
  else setTimeout(callback, 0);
};
