/** Describes a refusal or a failure by its cause, else by the answer. */
export function describeCause(cause: unknown, answer: Error): string {
  if (cause === undefined) return answer.message;
  try {
    return cause instanceof Error ? `${cause.message}` : String(cause);
  } catch {
    return `${answer.message} (a cause that cannot be shown)`; // Its own `toString` or `message` throws.
  }
}
