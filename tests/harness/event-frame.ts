/** What comes over the events' channels, read strictly: a frame that is no CloudEvent of ours is a SyntaxError. */

import { checkSchema } from "./answers.ts";

export interface EventFrame {
  readonly specversion: "1.0";
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly time: string;
  readonly subject?: string;
  readonly datacontenttype: "application/json";
  readonly dataschema: string;
  readonly tensordepoch: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** One text frame. */
export function readFrame(text: unknown): EventFrame {
  if (typeof text !== "string") throw new SyntaxError("a frame that is no text");
  const frame = JSON.parse(text) as EventFrame;
  if (frame.specversion !== "1.0" || !/^[1-9]\d*$/.test(positionOf(frame)) || !frame.type.startsWith("tensord."))
    throw new SyntaxError(`no event: ${text}`);
  return frame;
}

/** Where a stream stands behind the frame: what to resume after. */
export function positionOf({ type, id, data }: EventFrame): string {
  return type.startsWith("tensord.stream.") ? String(data.after) : id;
}

/** As `readFrame`, against the document's schema. Too slow for thousands. */
export function checkFrame(frame: EventFrame): void {
  checkSchema("CloudEvent", frame, frame.type);
}

/** The events of a `text/event-stream`, which has exactly the lines that the specification of ours has. */
export async function* readServerSentEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<EventFrame> {
  const decoder = new TextDecoder();
  let rest = "";
  let isFirst = true;
  for await (const chunk of body) {
    const blocks = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      if (block === ": keep-alive") continue;
      yield readBlock(block, isFirst);
      isFirst = false;
    }
  }
  if (rest !== "") throw new SyntaxError(`the stream ended within a block: ${rest}`);
}

function readBlock(block: string, isFirst: boolean): EventFrame {
  const [, id, data] = (isFirst ? /^retry: 1000\nid: (.*)\ndata: (.*)$/ : /^id: (.*)\ndata: (.*)$/).exec(block) ?? [];
  if (id === undefined) throw new SyntaxError(`no block of ours: ${JSON.stringify(block)}`);
  const frame = readFrame(data);
  if (positionOf(frame) !== id) throw new SyntaxError(`id ${id} stands over ${data}`);
  return frame;
}
