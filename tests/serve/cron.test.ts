import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseCron } from "../../src/serve/cron.ts";
import { assertProperty } from "../support/property.ts";

const MINUTE = 60_000;
const next = (expression: string, after: string): string => new Date(parseCron(expression)(Date.parse(after))).toISOString();

describe("parseCron", () => {
  it("finds the next time, in UTC", () => {
    const times: [expression: string, after: string, next: string][] = [
      ["* * * * *", "2026-11-29T18:59:59.999Z", "2026-11-29T19:00:00.000Z"],
      ["* * * * *", "2026-11-29T19:00:00.000Z", "2026-11-29T19:01:00.000Z"],
      ["30 8 * * *", "2026-11-29T08:30:00.000Z", "2026-11-30T08:30:00.000Z"],
      ["*/15 * * * *", "2026-12-31T23:46:00.000Z", "2027-01-01T00:00:00.000Z"],
      ["0 9-17/4 * * 1-5", "2026-11-27T17:30:00.000Z", "2026-11-30T09:00:00.000Z"],
      ["10/25 * * * *", "2026-11-29T00:11:00.000Z", "2026-11-29T00:35:00.000Z"],
      ["0 0 29 2 *", "2096-03-01T00:00:00.000Z", "2104-02-29T00:00:00.000Z"],
      ["0 0 31 * *", "2026-11-01T00:00:00.000Z", "2026-12-31T00:00:00.000Z"],
      ["0 12 * * 7", "2026-11-29T11:00:00.000Z", "2026-11-29T12:00:00.000Z"],
      // Either day is enough when both are given: the 13th, or a Friday.
      ["0 0 13 * 5", "2026-12-11T00:00:00.000Z", "2026-12-13T00:00:00.000Z"],
      ["0 0 13 * 5", "2026-12-13T00:00:00.000Z", "2026-12-18T00:00:00.000Z"],
      // Both must match when one begins with *: an odd day that is a Friday, the 13th that is a Sunday or a Friday.
      ["0 0 */2 * 5", "2026-12-01T00:00:00.000Z", "2026-12-11T00:00:00.000Z"],
      ["0 0 13 * */5", "2026-12-13T00:00:00.000Z", "2027-06-13T00:00:00.000Z"],
      // 29 February on a Sunday: each 28 years, and each 40 over 2100.
      ["0 0 29 2 */7", "2032-03-01T00:00:00.000Z", "2060-02-29T00:00:00.000Z"],
      ["0 0 29 2 */7", "2088-03-01T00:00:00.000Z", "2128-02-29T00:00:00.000Z"],
    ];
    for (const [expression, after, expected] of times) assert.equal(next(expression, after), expected, expression);
  });

  it("refuses text that is not five valid fields, and a date that never comes", () => {
    const wrong = ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *"];
    for (const expression of [...wrong, "5-1 * * * *", "*/0 * * * *", ", * * * *", "1.5 * * * *", "-1 * * * *", "0 0 30 2 *"]) {
      assert.throws(() => parseCron(expression), { name: "TypeError", message: /^Cannot read the cron expression/ }, expression);
    }
  });

  it("finds the same time as a search minute by minute", () => {
    const value = (first: number, last: number) => fc.integer({ min: first, max: last });
    const part = (first: number, last: number): fc.Arbitrary<[text: string, values: number[]]> =>
      fc.tuple(value(first, last), value(first, last), fc.integer({ min: 1, max: 20 })).map(([one, other, step]) => {
        const [from, to] = [Math.min(one, other), Math.max(one, other)];
        const values = Array.from({ length: to - from + 1 }, (_, index) => from + index).filter((each) =>
          (each - from) % step === 0
        );
        return [`${from}-${to}/${step}`, values];
      });
    const field = (first: number, last: number): fc.Arbitrary<[text: string, values: number[] | undefined]> =>
      fc.oneof(
        fc.constant<[string, undefined]>(["*", undefined]),
        fc.array(part(first, last), { minLength: 1, maxLength: 3 }).map((parts): [string, number[]] => [
          parts.map(([text]) => text).join(","),
          parts.flatMap(([, values]) => values),
        ]),
      );
    const fields = fc.tuple(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7));
    assertProperty(
      fc.property(
        fields,
        fc.date({ min: new Date("2026-01-01"), max: new Date("2030-01-01"), noInvalidDate: true }),
        (fields, after) => {
          const [minutes, hours, days, months, weekdays] = fields.map(([, values]) => values);
          const matches = (time: Date): boolean => {
            const [isDay, isWeekday] = [
              days?.includes(time.getUTCDate()),
              weekdays && (weekdays.includes(time.getUTCDay()) || weekdays.includes(7) && time.getUTCDay() === 0),
            ];
            return (minutes?.includes(time.getUTCMinutes()) ?? true) && (hours?.includes(time.getUTCHours()) ?? true) &&
              (months?.includes(time.getUTCMonth() + 1) ?? true) &&
              (isDay === undefined ? isWeekday ?? true : isWeekday === undefined ? isDay : isDay || isWeekday);
          };
          let expected: number | undefined;
          const first = Math.floor(after.getTime() / MINUTE + 1) * MINUTE;
          for (let time = first; time < first + 4 * 24 * 60 * MINUTE; time += MINUTE) {
            if (!matches(new Date(time))) continue;
            expected = time;
            break;
          }
          let found: number | undefined;
          try {
            found = parseCron(fields.map(([text]) => text).join(" "))(after.getTime());
          } catch {
            return expected === undefined; // Such as 31 February.
          }
          // The search ends after some days.
          return expected === undefined ? found >= first + 4 * 24 * 60 * MINUTE : found === expected;
        },
      ),
      { numRuns: 100 },
    );
  });
});
