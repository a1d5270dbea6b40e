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
  const deadline = performance.now() + deadlineMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, 20)) {
    const value = await condition();
    if (value !== undefined && value !== false) return value as Exclude<Value, undefined | false>;
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
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
