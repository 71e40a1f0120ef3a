/** The types of schedules, for the compiler only: each `@ts-expect-error` stands over a misuse. Compiled as contract.ts. */
import { type ScheduledCall, Schedules } from "../../src/serve/schedules.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? [] : [never]): void {}

interface Reminder {
  readonly at: Date;
  readonly text: string;
}

const schedules = new Schedules({
  // Storage has made a string of the date.
  remind: ({ payload }: ScheduledCall<Reminder>) => same<typeof payload, { readonly at: string; readonly text: string }>(),
  note: ({ payload }: ScheduledCall<string>) => same<typeof payload, string>(),
  perhaps: ({ payload }: ScheduledCall<Date | undefined>) => same<typeof payload, string | undefined>(),
  plain: ({ payload }: ScheduledCall) => same<typeof payload, unknown>(),
  digest: () => {},
  pay: (_call: ScheduledCall<{ cents: bigint }>) => {},
  perhapsPay: (_call: ScheduledCall<{ cents: bigint } | undefined>) => {},
});
same<
  typeof schedules,
  Schedules<{
    remind: Reminder;
    note: string;
    perhaps: Date | undefined;
    plain: unknown;
    digest: unknown;
    pay: { cents: bigint };
    perhapsPay: { cents: bigint } | undefined;
  }>
>();

export async function schedule(): Promise<void> {
  await schedules.schedule(1_000, "remind", { at: new Date(), text: "" });
  await schedules.schedule(1_000, "note", "");
  await schedules.schedule(1_000, "perhaps");
  await schedules.schedule(1_000, "perhaps", new Date(), { id: "1" });
  await schedules.schedule(1_000, "digest");
  await schedules.schedule(1_000, "plain", 1);
  // @ts-expect-error -- the handler takes a date, although it receives a string
  await schedules.schedule(1_000, "remind", { at: "2030-01-01", text: "" });
  // @ts-expect-error -- no such handler
  await schedules.schedule(1_000, "remnid", { at: new Date(), text: "" });
  // @ts-expect-error -- the payload is missing
  await schedules.schedule(1_000, "note");
  // @ts-expect-error -- a bigint is not JSON
  await schedules.schedule(1_000, "pay", { cents: 1n });
  // @ts-expect-error -- nor where the payload may be left out
  await schedules.schedule(1_000, "perhapsPay", { cents: 1n });
}
