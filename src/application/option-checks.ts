import { outboundChecks } from "./outbound.ts";

// `token` of RFC 9110 §5.6.2: the syntax of subprotocols (RFC 6455 §4.1) and of cookie names (RFC 6265 §4.1.1).
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,255}$/;

/** Whether the value is a function. */
export const isFunction = (value: unknown): boolean => typeof value === "function";
/** Whether the value is the name of a subprotocol or a cookie. */
export const isToken = (value: unknown): boolean => typeof value === "string" && TOKEN.test(value);
/** Whether the value is a whole number from 1. */
export const isPositive = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
/** Whether the value is a whole number from 0. */
export const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
/** Whether the value is a whole number from 1, or Infinity. */
export const isLimit = (value: unknown): boolean => value === Infinity || isPositive(value);
/** Whether the value is a number above 0. */
export const isAmount = (value: unknown): boolean => Number.isFinite(value) && (value as number) > 0;
/** Whether `defineContract` of this copy of the package has returned the value. */
export const isContract = (value: unknown): boolean => typeof value === "object" && value !== null && outboundChecks.has(value);

/** Whether the value is an object whose fields all have a check and pass it; undefined fields are allowed. */
export function isObjectOf(value: unknown, checks: Record<string, (field: unknown) => boolean>): boolean {
  return typeof value === "object" && value !== null &&
    Object.entries(value).every(([name, field]) => field === undefined || (Object.hasOwn(checks, name) && checks[name]!(field)));
}

/** What {@link isLimit} accepts, for error messages. */
export const LIMIT = "a whole number from 1, or Infinity";

/** Whether the value is a `Logger`, or the name of a format. An object with a `format` is the option of an earlier version. */
export function isLogger(value: unknown): boolean {
  if (value === "text" || value === "json") return true;
  if (typeof value !== "object" || value === null || !("warn" in value && "error" in value)) return false;
  return isFunction(value.warn) && isFunction(value.error) && !("format" in value && typeof value.format === "string");
}

/** Drops undefined fields, so that spreading the result keeps the defaults. */
export function defined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T; // Only optional fields are removed.
}
