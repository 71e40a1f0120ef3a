/** Called with what application code threw or rejected with, and with the argument of its call. */
export type Report<Argument = void> = (error: unknown, argument: Argument) => void;

/**
 * Runs code of the application, and passes what it throws or rejects with to `report`. Every callback runs through here, because an
 * unhandled rejection ends a Node, Deno or Bun process.
 */
export function guard(run: () => unknown, report: Report): void;
export function guard<Argument>(run: (argument: Argument) => unknown, report: Report<Argument>, argument: Argument): void;
export function guard<Argument>(
  run: (argument?: Argument) => unknown,
  report: Report<Argument | undefined>,
  argument?: Argument,
): void {
  // With an argument, so that listeners need no closure for each message.
  try {
    const result = run(argument);
    // `Promise.resolve` turns an error of a `then` getter into a rejection.
    if (typeof result === "object" && result !== null) Promise.resolve(result).catch((error) => report(error, argument));
  } catch (error) {
    report(error, argument);
  }
}

/**
 * Calls a synchronous hook of the application. If it throws or returns something else, such as a promise, that is reported and
 * `undefined` is returned.
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

/** Whether the value is a promise or another thenable. @throws what its getter or trap throws. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}
