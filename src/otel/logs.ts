import type { LoggedError, LogLevel, LogRecord } from "../application/log.ts";
import type { Observer } from "../application/observer.ts";
import { guard } from "../base/guard.ts";

/** A log record in the data model of OpenTelemetry. */
export interface EmittedRecord {
  /** The event of the record. */
  eventName: string;
  /** 13 for a warning, 17 for an error. */
  severityNumber: number;
  /** The level. */
  severityText: string;
  /** The message. */
  body: string;
  /** The fields. */
  attributes: Record<string, string | number>;
}

/** A logger of `@opentelemetry/api-logs`: `logs.getLogger("noroshi")`. */
export interface LogEmitter {
  /** Emits one record. */
  emit(record: EmittedRecord): void;
}

const SEVERITY: Record<LogLevel, number> = { warn: 13, error: 17 };

/** Attribute names of the fields. */
const NAMES: Record<Exclude<keyof LogRecord, "event" | "error">, string> = {
  reason: "noroshi.refusal.reason",
  code: "error.type",
  ip: "client.address",
  origin: "noroshi.origin",
  host: "noroshi.host",
  option: "noroshi.option",
  limit: "noroshi.limit",
  client: "noroshi.client",
  suppressed: "noroshi.suppressed",
};

/** Emits the log records of the controller to OpenTelemetry. */
export class Logs implements Observer {
  readonly #controller: string;
  readonly #logger: LogEmitter;

  constructor(controller: string, logger: LogEmitter) {
    this.#controller = controller;
    this.#logger = logger;
  }

  logged(level: LogLevel, { event, error, ...fields }: LogRecord, body: string): void {
    const attributes: Record<string, string | number> = { "noroshi.controller": this.#controller };
    for (const [name, value] of Object.entries(fields)) attributes[NAMES[name as keyof typeof NAMES]] = value; // The fields of a record.
    if (error) {
      attributes["exception.message"] = error.message;
      attributes["exception.stacktrace"] = stackOf(error);
    }
    const record = { eventName: event, severityNumber: SEVERITY[level], severityText: level.toUpperCase(), body, attributes };
    guard(() => this.#logger.emit(record), () => {}); // Reporting the error would log it again.
  }
}

const stackOf = ({ message, stack, cause }: LoggedError): string =>
  [message, ...stack ? [stack] : [], ...cause ? [`caused by ${stackOf(cause)}`] : []].join("\n");
