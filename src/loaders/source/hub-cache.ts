/**
 * Hugging Face's cache on disk: a folder a repository, in which the files of each revision (`snapshots/<revision>/`) are links to their
 * contents (`blobs/`). It says which folder such links have to stay in, and opens nothing. Pure.
 */

/** A file that lies in a repository's folder, by its path from there. */
export interface InRepository {
  /** From the root; empty where the file is in none, or the root is the repository's folder itself. */
  readonly folder: string;
  readonly rest: string;
}

// As huggingface_hub names them: the kind, the organisation and the name, with "--" for "/".
const repository = /^(models|datasets|spaces)--./;

/**
 * Of several the outermost one counts: what lies in it is that repository's, whatever it is called.
 * @param below a file's path from its root, normalised.
 */
export function toRepository(below: string): InRepository {
  const parts = below.split("/");
  const at = parts.findIndex((part, index) => repository.test(part) && parts[index + 1] === "snapshots");
  return { folder: parts.slice(0, at + 1).join("/"), rest: parts.slice(at + 1).join("/") };
}
