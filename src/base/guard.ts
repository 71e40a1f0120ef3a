/** Receives what application code threw or rejected with, and the argument of that call. */
export type Report<Argument = void> = (error: unknown, argument: Argument) => void;

/**
 * Runs code of the application and passes a throw or a rejection to `report`. Every callback runs through here, because a
 * rejected async callback ends a bare Node, Deno or Bun process.
 */
export function guard(run: () => unknown, report: Report): void;
export function guard<Argument>(run: (argument: Argument) => unknown, report: Report<Argument>, argument: Argument): void;
export function guard<Argument>(
  run: (argument?: Argument) => unknown,
  report: Report<Argument | undefined>,
  argument?: Argument,
): void {
  // The argument is passed through, so that a listener needs no closure per message.
  try {
    const result = run(argument);
    // Promise.resolve reads `then` once, inside its own try: a hostile thenable becomes a rejection.
    if (typeof result === "object" && result !== null) Promise.resolve(result).catch((error) => report(error, argument));
  } catch (error) {
    report(error, argument);
  }
}

/**
 * Calls a synchronous hook of the application. `undefined`: it threw or returned something else, such as a promise, and that was
 * reported.
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
