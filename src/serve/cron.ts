/** Name, lowest and highest value of each field. */
const FIELDS = [
  ["minute", 0, 59],
  ["hour", 0, 23],
  ["day of the month", 1, 31],
  ["month", 1, 12],
  ["day of the week", 0, 7],
] as const;

/** Every date occurs within so many years. The rarest is 29 February on a given day of the week, across 2100. */
const MAX_YEARS = 40;

/** Maximum characters of an expression. */
const MAX_LENGTH = 256;

const PART = /^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:\/(\d{1,2}))?$/;

/**
 * Reads a cron expression of five fields, in UTC: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday). A
 * field is `*`, a number, a range (`1-5`), steps (`0-59/15`), or a list of them (`0,30`). If both day fields are restricted, a
 * date that matches one of them is enough, as in POSIX `crontab`. If one begins with `*`, both must match, as in Vixie cron.
 *
 * @returns a function that returns the first matching time after another time, both in ms since 1970.
 * @throws {TypeError} for an invalid expression, and for a date that never occurs.
 */
export function parseCron(expression: string): (after: number) => number {
  if (expression.length > MAX_LENGTH) {
    throw new TypeError(`Cannot read the cron expression: it has more than ${MAX_LENGTH} characters`);
  }
  const fields = expression.trim().split(/\s+/);
  if (fields.length !== FIELDS.length) throw wrong(expression, 'write five fields, such as "0 8 * * 1-5"');
  const [minutes, hours, days, months, weekdays] = fields.map((field, index) => valuesOf(expression, field, index)) as [
    Set<number>,
    Set<number>,
    Set<number>,
    Set<number>,
    Set<number>,
  ]; // As many as fields.
  if (weekdays.has(7)) weekdays.add(0);
  // A field that begins with * restricts nothing.
  const [isAnyDay, isAnyWeekday] = [fields[2]!.startsWith("*"), fields[4]!.startsWith("*")];
  const isDay = (time: Date): boolean => {
    const [day, weekday] = [days.has(time.getUTCDate()), weekdays.has(time.getUTCDay())];
    return isAnyDay || isAnyWeekday ? day && weekday : day || weekday;
  };
  const next = (after: number): number => {
    const time = new Date(after);
    time.setUTCSeconds(0, 0);
    time.setUTCMinutes(time.getUTCMinutes() + 1);
    const last = time.getUTCFullYear() + MAX_YEARS;
    while (time.getUTCFullYear() <= last) {
      if (!months.has(time.getUTCMonth() + 1)) {
        time.setUTCMonth(time.getUTCMonth() + 1, 1);
        time.setUTCHours(0, 0);
      } else if (!isDay(time)) {
        time.setUTCDate(time.getUTCDate() + 1);
        time.setUTCHours(0, 0);
      } else if (!hours.has(time.getUTCHours())) time.setUTCHours(time.getUTCHours() + 1, 0);
      else if (!minutes.has(time.getUTCMinutes())) time.setUTCMinutes(time.getUTCMinutes() + 1);
      else return time.getTime();
    }
    throw wrong(expression, "no such date exists");
  };
  next(0);
  return next;
}

function valuesOf(expression: string, field: string, index: number): Set<number> {
  const [name, first, last] = FIELDS[index]!;
  const values = new Set<number>();
  for (const part of field.split(",")) {
    const found = PART.exec(part);
    const [, from, to, step] = found ?? [];
    const start = from === undefined ? first : Number(from);
    // `5/10` means every tenth value from 5 to the last.
    const end = to !== undefined ? Number(to) : from === undefined || step !== undefined ? last : start;
    if (!found || start < first || end > last || start > end || step !== undefined && Number(step) === 0) {
      throw wrong(expression, `the ${name} must be *, or numbers from ${first} to ${last}`);
    }
    for (let value = start; value <= end; value += Number(step ?? 1)) values.add(value);
  }
  return values;
}

const wrong = (expression: string, remedy: string) => new TypeError(`Cannot read the cron expression "${expression}": ${remedy}`);
