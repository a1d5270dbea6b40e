import { describe, expect, test } from "bun:test";
import { AssertionError } from "node:assert/strict";
import fc from "fast-check";
import { failures, TensordError } from "../../src/memory/error.ts";
import { type State, states } from "../../src/memory/journal/region-record.ts";
import { type LifecycleEvent, lifecycleEvents, nextState } from "../../src/memory/state/lifecycle.ts";

// Every cell once more, in the columns of `states`: a state, a failure, or - for what only our own mistake can reach.
const cells: Record<LifecycleEvent, string> = {
  //                creating     open              sealing     sealed        draining        deleted
  commit: "         open         -                 -           -             -               cancelled",
  "commit-refused": "draining    -                 -           -             -               cancelled",
  abort: "          deleted      -                 -           -             -               cancelled",
  seal: "           region-busy  sealing           region-busy region-sealed region-draining region-not-found",
  "seal-refused": " -            -                 open        -             cancelled       cancelled",
  "seal-committed": "-           -                 sealed      -             cancelled       cancelled",
  delete: "         deleted      draining          draining    draining      draining        region-not-found",
  freed: "          -            -                 -           -             deleted         region-not-found",
  lost: "           -            deleted           deleted     deleted       deleted         region-not-found",
  verify: "         region-busy  region-not-sealed region-busy sealed        region-draining region-not-found",
  copy: "           region-busy  region-not-sealed region-busy sealed        region-draining region-not-found",
  attach: "         region-busy  open              sealing     sealed        region-draining region-not-found",
  change: "         region-busy  open              sealing     sealed        region-draining region-not-found",
  lease: "         region-busy  open              sealing     sealed        region-draining region-not-found",
  read: "           region-busy  open              sealing     sealed        region-draining region-not-found",
  write:
    "         region-busy  open              region-busy     region-sealed        region-draining region-not-found",
  replaced: "       region-busy  draining          draining    draining      -               region-not-found",
};

/** A region in `state`, as far as the table looks at one. */
function regionIn(state: State) {
  return { token: "x", model: "m", name: "n", version: "", state };
}

/** What a cell answers, in the words of the table above. */
function outcomeOf(state: State, event: LifecycleEvent): string {
  try {
    return nextState(regionIn(state), event);
  } catch (error) {
    if (error instanceof TensordError) return error.code;
    if (error instanceof AssertionError) return "-";
    throw error;
  }
}

describe("nextState", () => {
  for (const event of lifecycleEvents) {
    test(`${event} leads from each state to the one that the table says`, () => {
      expect(states.map((state) => outcomeOf(state, event))).toEqual(cells[event].trim().split(/\s+/));
    });
  }

  test("says what was tried, what is, what is wanted, and what to do", () => {
    const failure = failureOf("sealed", "seal");
    expect(failure.message).toBe("Cannot seal reg_x (m/n): it is sealed, want open");
    expect(failure.facts).toEqual({
      region: "reg_x",
      hint: 'A seal is final: read the region, or create another one with if_exists "replace".',
      state: "sealed",
    });
    expect(failureOf("draining", "attach").message).toBe(
      "Cannot attach to reg_x (m/n): it is draining, want open or sealing or sealed",
    );
    for (const state of states) {
      for (const event of lifecycleEvents) {
        if (!(outcomeOf(state, event) in failures)) continue;
        expect(failureOf(state, event).message).toMatch(/^Cannot [a-z ]+ reg_x \(m\/n\): it is [a-z]+, want [a-z ]+$/);
        expect(failureOf(state, event).facts.hint).toEndWith(".");
      }
    }
  });

  test("asserts where only our own mistake can lead, and names it", () => {
    expect(() => nextState(regionIn("sealed"), "commit")).toThrow("commit of reg_x (m/n) cannot happen: it is sealed");
    expect(() => nextState(regionIn("sealed"), "commit")).toThrow(AssertionError);
  });

  test("never leaves deleted, never comes back to creating, and a sealed region is never written again", () => {
    fc.assert(
      fc.property(fc.constantFrom(...states), fc.array(fc.constantFrom(...lifecycleEvents)), (first, events) => {
        let state = first;
        for (const event of events) {
          const outcome = outcomeOf(state, event);
          const next = states.find((candidate) => candidate === outcome) ?? state;
          if (state === "deleted") expect(next).toBe("deleted");
          if (next === "creating") expect(state).toBe("creating");
          if (state === "draining") expect(["draining", "deleted"]).toContain(next);
          if (state === "sealed") expect(["sealed", "draining", "deleted"]).toContain(next);
          state = next;
        }
      }),
    );
  });

  test("reaches deleted from every state by a delete and, where it drains, the end of the last lease", () => {
    for (const state of states.filter((candidate) => candidate !== "deleted")) {
      const next = nextState(regionIn(state), "delete");
      expect(next === "draining" ? nextState(regionIn(next), "freed") : next).toBe("deleted");
    }
  });

  test("reaches every state from creating", () => {
    const reached = new Set<State>(["creating"]);
    for (const state of reached) {
      const outcomes = lifecycleEvents.map((event) => outcomeOf(state, event));
      for (const next of states.filter((candidate) => outcomes.includes(candidate))) reached.add(next);
    }
    expect([...reached].toSorted()).toEqual(states.toSorted());
  });
});

function failureOf(state: State, event: LifecycleEvent): TensordError {
  try {
    nextState(regionIn(state), event);
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error(`${event} of ${state} was allowed`);
}
