/**
 * Preloaded into a server whose time a test moves: with each SIGUSR2 the clock leaps a minute, so that what counts as
 * handed out a moment ago may be evicted now. Timers run as they did; a restart is back in the present.
 */

const now = Date.now;
let leaptMs = 0;
Date.now = () => now() + leaptMs;
process.on("SIGUSR2", () => {
  leaptMs += 60_000;
});
