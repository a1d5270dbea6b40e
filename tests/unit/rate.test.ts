import { expect, test } from "bun:test";
import fc from "fast-check";
import { Rate } from "../../src/server/access/rate.ts";

test("a rate lets as many through at once as it has in a second, then says when to ask again", () => {
  const rate = new Rate(10, 0);
  expect(Array.from({ length: 10 }, () => rate.take(0))).toEqual(Array(10).fill(0));
  expect(rate.take(0)).toBe(1);
  expect(rate.take(99)).toBe(1);
  expect(rate.take(100)).toBe(0);
  const slow = new Rate(0.01, 0);
  expect(slow.take(0)).toBe(0);
  expect(slow.take(0)).toBe(100);
  expect(slow.take(50_000)).toBe(50);
});

test("a rate never lets more through than it says, and who waits as long as it said is let through", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.01, max: 1000, noNaN: true }),
      fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 200 }),
      (perSecond, pauses) => {
        const rate = new Rate(perSecond, 0);
        let now = 0;
        let passed = 0;
        for (const pause of pauses) {
          now += pause;
          if (rate.take(now) === 0) passed += 1;
        }
        expect(passed).toBeLessThanOrEqual(Math.max(1, perSecond) + (now * perSecond) / 1000 + 1e-6);
        const seconds = rate.take(now);
        expect(seconds === 0 ? 0 : rate.take(now + seconds * 1000 + 1)).toBe(0);
      },
    ),
  );
});
