/**
 * The reference page at `/docs`: Swagger UI over `/openapi.json`, all of it from this server. Nothing on it leads to
 * another origin, and its policy lets the browser load nothing from one.
 */

import type { OpenAPIHono } from "@hono/zod-openapi";
import styles from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import script from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import { TensordError } from "../memory/error.ts";
import type { Environment } from "./environment.ts";
import { toPageHeaders } from "./page-headers.ts";

/**
 * The page with URLs that are relative, so that it also works below a prefix that a proxy takes off.
 * @param base what leads from the page to its assets.
 */
const toPage = (base: string) => `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>tensord</title>
    <link rel="stylesheet" href="${base}swagger-ui.css">
    <link rel="icon" href="data:,">
  </head>
  <body>
    <div id="reference"></div>
    <script src="${base}swagger-ui-bundle.js"></script>
    <script type="module" src="${base}reference.js"></script>
  </body>
</html>
`;

/** The document names the default address; what is tried out here goes to this server, wherever it listens. */
const start = `const document = await (await fetch(new URL("../openapi.json", import.meta.url))).json();
const server = new URL("..", import.meta.url).pathname.replace(/(.)\\/$/, "$1");
SwaggerUIBundle({
  spec: { ...document, servers: [{ url: server }] },
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
});
`;

const assets = new Map<string, { readonly type: string; readonly content: () => Blob | string }>([
  ["swagger-ui.css", { type: "text/css; charset=utf-8", content: () => Bun.file(styles) }],
  ["swagger-ui-bundle.js", { type: "text/javascript; charset=utf-8", content: () => Bun.file(script) }],
  ["reference.js", { type: "text/javascript; charset=utf-8", content: () => start }],
]);

const headers = toPageHeaders("script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'");

export function defineDocsPage(app: OpenAPIHono<Environment>): void {
  app.get("/docs", (c) => {
    // The router's own path has lost its last slash.
    return new Response(toPage(new URL(c.req.url).pathname.endsWith("/") ? "" : "docs/"), {
      headers: { ...headers, "content-type": "text/html; charset=utf-8", "cache-control": "no-cache" },
    });
  });

  app.get("/docs/:asset", (c) => {
    const asset = assets.get(c.req.param("asset"));
    if (asset === undefined) {
      throw new TensordError(
        "route-not-found",
        `Cannot find ${JSON.stringify(c.req.path.slice(0, 200))}: no such asset`,
        {
          hint: "The page is at /docs, the document at /openapi.json.",
        },
      );
    }
    return new Response(asset.content(), {
      headers: { ...headers, "content-type": asset.type, "cache-control": "max-age=3600" },
    });
  });
}
