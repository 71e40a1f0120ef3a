/** Told of every error that application code threw or rejected with, and of what it was called with. */
export type Report<Argument = void> = (error: unknown, argument: Argument) => void;

/**
 * Runs code of the application: a throw and a rejection both end in `report`, never in the process.
 * A rejected async callback ends a bare Node, Deno or Bun process, so every callback passes through here.
 */
export function guard(run: () => unknown, report: Report): void;
export function guard<Argument>(run: (argument: Argument) => unknown, report: Report<Argument>, argument: Argument): void;
export function guard<Argument>(
  run: (argument?: Argument) => unknown,
  report: Report<Argument | undefined>,
  argument?: Argument,
): void {
  // The argument is handed through, so that a listener costs no closure a message.
  try {
    const result = run(argument);
    // Promise.resolve reads `then` once, inside a try of its own, so that a hostile thenable is a rejection too.
    if (typeof result === "object" && result !== null) Promise.resolve(result).catch((error) => report(error, argument));
  } catch (error) {
    report(error, argument);
  }
}

/**
 * Asks a hook of the application that has to answer at once. `undefined` is no answer: it threw, or it returned something else,
 * a promise perhaps; that is reported.
 */
export function ask<Answer>(
  hook: () => unknown,
  isAnswer: (value: unknown) => value is Answer,
  report: Report,
): Answer | undefined {
  let answer: Answer | undefined;
  guard(() => {
    const value = hook();
    if (isAnswer(value)) answer = value;
    else report(new TypeError("Cannot use what a hook returned: it is of the wrong type, or a promise"));
    return value;
  }, report);
  return answer;
}

/** Whether somebody has to wait for it. @throws what its getter or trap throws */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}
