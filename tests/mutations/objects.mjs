/** Mistakes in how objects of an S3 service are read, and links of a Hugging Face cache followed. */

const source = "src/loaders/source";
const service = "tests/contract/load-s3.test.ts";

export const objectsMutations = [
  {
    name: "another state of an object is taken for the one that was opened",
    file: `${source}/s3-source.ts`,
    find: "answered.etag !== of.etag || ",
    replace: "",
    test: [service, "knows no If-Match"],
  },
  {
    name: "an object is not looked at once more at the end",
    file: `${source}/s3-source.ts`,
    find: "if (isChange(error)) return false;",
    replace: "if (isChange(error)) return true;",
    test: [service, "changes it at the very end"],
  },
  {
    name: "a service may send on to another address",
    file: `${source}/s3-request.ts`,
    find: `redirect: "manual"`,
    replace: `redirect: "follow"`,
    test: [service, "sends elsewhere"],
  },
  {
    name: "a range that breaks off is asked for from its beginning",
    file: `${source}/s3-source.ts`,
    find: "byteOffset + done, byteSize - done",
    replace: "byteOffset, byteSize",
    test: [service, "stalls once"],
  },
  {
    name: "a prefix is any beginning of a key",
    file: `${source}/s3-uri.ts`,
    find: "{one}/`)",
    replace: "{one}`)",
    test: ["tests/unit/s3-source.test.ts", "llama-of-others"],
  },
  {
    name: "links of a cache may lead to other repositories",
    file: `${source}/hub-cache.ts`,
    find: "parts.slice(0, at + 1).join",
    replace: "parts.slice(0, 0).join",
    test: ["tests/contract/hub-cache.test.ts", "another repository's content"],
  },
];
