/**
 * The headers of answers, as routes declare them. `X-Request-Id` and `Cache-Control` are declared nowhere: every answer may
 * have them, and a generated client would wrap each answer for their sake.
 */

export type AnswerHeaders = Record<string, ReturnType<typeof text>>;

function text(description: string, example: string) {
  return { description, schema: { type: "string" as const }, example };
}

export const etag = {
  ETag: text("What `If-Match` and `If-None-Match` compare.", '"reg_abcdefghijklmnopqrstuvwxyz.3"'),
};

export const location = { Location: text("The path of what was made.", "/v1/regions/reg_abcdefghijklmnopqrstuvwxyz") };

export const preferenceApplied = { "Preference-Applied": text("The wait that was granted.", "wait=30") };

export const contentRange = { "Content-Range": text("Which bytes, and of how many.", "bytes 0-1023/4096") };

export const acceptEncoding = { "Accept-Encoding": text("The encodings that are taken.", "identity") };

export const wwwAuthenticate = { "WWW-Authenticate": text("How to say who asks.", 'Bearer realm="tensord"') };

export const retryAfter = { "Retry-After": text("Seconds.", "1") };

export const download = {
  ...etag,
  "Accept-Ranges": text("That ranges are taken.", "bytes"),
  "Content-Disposition": text("A file name for whoever saves it.", 'attachment; filename="weights.bin"'),
};
