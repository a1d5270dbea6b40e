/**
 * The other way to answer with a file's bytes: windows read with `pread` and streamed through JavaScript. Beside it, at
 * `/sendfile`, the way that the server has, so that both are measured in the same surroundings.
 *
 * Usage: pread-server.ts <socket> <file> <bytes in a window>. Prints a line when it listens.
 */

import { open } from "node:fs/promises";

const [socket = "", path = "", windowBytes = ""] = process.argv.slice(2);
const file = await open(path, "r");
const { size } = await file.stat();

function stream(): ReadableStream<Uint8Array> {
  let done = 0;
  return new ReadableStream({
    async pull(controller) {
      const window = Buffer.allocUnsafe(Math.min(Number(windowBytes), size - done));
      const { bytesRead } = await file.read(window, 0, window.length, done);
      done += bytesRead;
      controller.enqueue(window);
      if (done === size) controller.close();
    },
  });
}

Bun.serve({
  unix: socket,
  fetch: (request) => new Response(request.url.endsWith("/sendfile") ? Bun.file(path) : stream()),
});
process.stdout.write("ready\n");
