/** Real S3 servers, others' programs: a process of its own that has two of them over one folder. */

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { root, stockPython } from "./instance-needs.ts";
import { ModelFolder } from "./load.ts";
import { bucket } from "./s3-service.ts";
import { within } from "./server-wait.ts";

export const accessKey = "TESTACCESSKEY";
/** In no text that a server of ours writes. */
export const secretKey = "test/secret+key";

export class S3Servers implements AsyncDisposable {
  /** Where signatures are checked, and where nobody looks at them. */
  readonly signed: string;
  readonly unsigned: string;
  readonly #folder: ModelFolder;
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;

  private constructor(folder: ModelFolder, child: Bun.Subprocess<"pipe", "pipe", "inherit">, urls: Urls) {
    this.#folder = folder;
    this.#process = child;
    this.signed = urls.signed;
    this.unsigned = urls.unsigned;
  }

  static async start(): Promise<S3Servers> {
    using started = new DisposableStack();
    const folder = started.use(new ModelFolder());
    mkdirSync(join(folder.path, bucket));
    const script = join(root, "tests/harness/workers/s3_servers.py");
    const child = Bun.spawn([stockPython, script, folder.path, accessKey, secretKey], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    started.defer(() => child.kill("SIGKILL"));
    const said = await within("S3 servers say where they listen", readLine(child.stdout));
    const servers = new S3Servers(folder, child, JSON.parse(said) as Urls);
    started.move();
    return servers;
  }

  /** Puts an object. @returns its URI. */
  put(key: string, content: Uint8Array | string): string {
    const path = join(this.#folder.path, bucket, key);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return `s3://${bucket}/${key}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
    this.#folder[Symbol.dispose]();
  }
}

interface Urls {
  readonly signed: string;
  readonly unsigned: string;
}

async function readLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of stream) {
    text += Buffer.from(chunk).toString();
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  throw new Error("it ended without a word");
}
