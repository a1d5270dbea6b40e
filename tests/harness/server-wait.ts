/** Waiting for a condition with a deadline, and never by the clock alone. */

/** How long anything in a test may take that has no deadline of its own: on a machine that is busy with something else. */
export const patienceMs = 180_000;

/**
 * Asks `condition` again and again until it answers with something other than undefined and false.
 * @throws Error that names `what` once the deadline has passed.
 */
export async function until<Value>(
  what: string,
  condition: () => Value | Promise<Value>,
  deadlineMs = patienceMs,
): Promise<Exclude<Value, undefined | false>> {
  const begin = performance.now();
  for (let pauseMs = 1; ; pauseMs *= 2) {
    const value = await condition();
    if (value !== undefined && value !== false) return value as Exclude<Value, undefined | false>;
    const waitedMs = performance.now() - begin;
    if (waitedMs > deadlineMs) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    // What takes long is asked for seldom: a question may be a request, or the start of a command.
    pauseMs = Math.min(pauseMs, Math.max(20, waitedMs / 10), 50);
    await Bun.sleep(pauseMs);
  }
}

/** `promise`, or an Error that names `what` if it takes longer than the deadline. */
export async function within<Value>(what: string, promise: Promise<Value>, deadlineMs = patienceMs): Promise<Value> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
