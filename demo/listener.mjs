/**
 * The listener: a process that follows the server's events from the beginning to the end, whose lines run through the
 * story as they come, and what it must have heard in the end.
 */

import { until } from "./cast.mjs";
import { aside, claim, line, step } from "./telling.mjs";

const gapType = "tensord.stream.gap";

export class Listener {
  #actor;
  #events = [];
  #failure;

  /** @param {import("./actor.mjs").Actor} actor who follows them and passes them on */
  constructor(actor) {
    this.#actor = actor;
  }

  /** Begins to listen. What changes after this will be heard. */
  async start() {
    const { after } = await this.#actor.hear();
    line(`a listener follows its events (~) from number ${after} on`);
    void this.#listen();
  }

  /** Waits until an event of `type` has come: the story goes on once its listener has heard. */
  async heard(type) {
    return await until(`the listener heard ${type}`, () => {
      if (this.#failure !== undefined) throw this.#failure;
      return this.#events.find((event) => event.type === type);
    });
  }

  /** Waits for the event that a crash of the server makes, and tells what it means. */
  async heardGap(regionId) {
    const { data, listed } = await this.heard(gapType);
    line(`the listener came back by itself. The gap: nobody knows any more whether anything happened between events`);
    line(`${data.requested_after} and ${data.first_available}, since the server that kept them is dead`);
    claim(
      "so it listed the regions, as one does after a gap, and had missed nothing: this one is there and no other",
      listed.join() === regionId,
    );
  }

  /** What it heard of the region, which went through `changes`, from the beginning of the story to its end. */
  async conclude(regionId, changes) {
    step("The listener is asked what it heard");
    await this.#actor.kill();
    const numbered = this.#events.filter(({ type }) => type !== gapType);
    const ids = numbered.map(({ id }) => BigInt(id));
    const epochs = new Set(this.#events.map(({ epoch }) => epoch));
    claim(
      `the numbers of its ${ids.length} events only rise, also across the restart (${epochs.size} starts of the server)`,
      epochs.size === 2 && ids.every((id, index) => index === 0 || id > ids[index - 1]),
    );
    // Sessions of its workers come and go beside it.
    const heard = this.#events.filter(({ type }) => type.startsWith("tensord.region."));
    claim(
      `it heard every change of the region, once and in order: ${changes.join(", ")}`,
      heard.every(({ subject }) => subject === regionId) &&
        heard.map(({ type }) => type).join() === changes.map((change) => `tensord.region.${change}`).join(),
    );
  }

  /** Until the actor ends: by the story in the end, and before that it is a failure of the story. */
  async #listen() {
    try {
      for (;;) {
        const event = await this.#actor.hear();
        this.#events.push(event);
        const { data } = event;
        aside(`event ${event.id}  ${event.type}${data.reason === undefined ? "" : ` (${data.reason})`}`);
      }
    } catch (error) {
      this.#failure = error;
    }
  }
}
