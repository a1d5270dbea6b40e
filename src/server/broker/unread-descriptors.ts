/**
 * How many descriptors are on their way that nobody has read yet. They are open files of nobody: they come out of what the machine has, and
 * lease what they are of, so both a connection and all together have a bound.
 */

import { limits } from "../../memory/limits.ts";
import { readUnread } from "../../memory/os/libc-unix.ts";
import { unreadElsewhere, unreadHere } from "./failures.ts";

/** A connection, as far as that goes. */
export interface Receiver {
  readonly fd: number;
  /** Descriptors that were sent since its peer had read everything. */
  unread: number;
}

export class UnreadDescriptors {
  #sum = 0;

  /** @throws TensordError `too-many-requests` if `count` more to `receiver` are too many. */
  check(receiver: Receiver, count: number, all: Iterable<Receiver>): void {
    if (count === 0) return;
    this.#look(receiver);
    if (receiver.unread > 0 && receiver.unread + count > limits.brokerUnreadDescriptors) throw unreadHere();
    if (this.#sum + count <= limits.brokerUnreadDescriptorsOfAll) return;
    for (const each of all) if (each.unread > 0) this.#look(each);
    if (this.#sum + count > limits.brokerUnreadDescriptorsOfAll) throw unreadElsewhere();
  }

  add(receiver: Receiver, count: number): void {
    receiver.unread += count;
    this.#sum += count;
  }

  forget(receiver: Receiver): void {
    this.#sum -= receiver.unread;
    receiver.unread = 0;
  }

  #look(receiver: Receiver): void {
    if (receiver.unread > 0 && readUnread(receiver.fd) === 0) this.forget(receiver);
  }
}
