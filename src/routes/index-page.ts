/** What is at `/`: where to go from here, as a page for people and as JSON for programs. It tells nothing of this server's memory. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { accepts } from "hono/accepts";
import { answer } from "./answer.ts";
import { json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { toPageHeaders } from "./page-headers.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";

/** Each link with what a person reads of it. They are relative, so that they also lead on below a prefix that a proxy takes off. */
const places = {
  docs: { href: "./docs", meaning: "Reference of the API: every operation, to be tried out" },
  openapi: { href: "./openapi.json", meaning: "The same for generators of clients: OpenAPI" },
  asyncapi: { href: "./asyncapi.json", meaning: "What the streams of events send: AsyncAPI" },
  capabilities: { href: "./v1/capabilities", meaning: "What this server and this host can do" },
  stats: { href: "./v1/stats", meaning: "The books: memory, regions, traffic" },
  regions: { href: "./v1/regions", meaning: "The regions that are here" },
  events: { href: "./v1/events", meaning: "What happened to them" },
  doctor: { href: "./v1/doctor", meaning: "What is wrong on this host, and the cure" },
} as const;

type Place = keyof typeof places;

const Links = z.object({
  docs: toLink("docs"),
  openapi: toLink("openapi"),
  asyncapi: toLink("asyncapi"),
  capabilities: toLink("capabilities"),
  stats: toLink("stats"),
  regions: toLink("regions"),
  events: toLink("events"),
  doctor: toLink("doctor"),
} satisfies Record<Place, z.ZodType>);

const Index = z
  .object({
    name: z.string().openapi({ example: "tensord" }),
    version: z.string().openapi({ example: "0.1.0" }),
    links: Links.openapi({ description: "URI references, relative to where this answer is." }),
  })
  .openapi("Index");

const index = createRoute({
  operationId: "getIndex",
  method: "get",
  path: "/",
  tags: ["host"],
  summary: "Where to go from here",
  description: "A browser, which asks for `text/html`, is answered with a page that has the same links.",
  responses: { 200: json("What there is.", Index), ...declareFailures(...alwaysPossible) },
});

const html = "text/html";

export function defineIndexPage(app: OpenAPIHono<Environment>, { version }: Services): void {
  const links = Object.fromEntries(Object.entries(places).map(([place, { href }]) => [place, href]));
  const body = { name: "tensord", version, links } as z.infer<typeof Index>;
  const page = Buffer.from(toPage(version));
  const headers = {
    ...toPageHeaders("img-src data:"),
    "content-type": `${html}; charset=utf-8`,
    "cache-control": "no-cache",
  };

  app.openapi(index, (c) => {
    // Who says nothing, or takes anything, is a program.
    const type = accepts(c, { header: "Accept", supports: ["application/json", html], default: "application/json" });
    c.header("vary", "Accept");
    if (type !== html) return answer(c, body, 200);
    c.env?.sent?.(page.byteLength);
    return c.body(page, 200, headers) as never;
  });
}

function toLink(place: Place) {
  const { href, meaning } = places[place];
  return z.string().openapi({ description: `${meaning}.`, example: href });
}

function toPage(version: string): string {
  const items = Object.values(places).map(({ href, meaning }) => `<li><a href="${href}">${meaning}</a></li>`);
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width">
    <meta name="color-scheme" content="light dark">
    <title>tensord</title>
    <link rel="icon" href="data:,">
  </head>
  <body>
    <h1>tensord ${version}</h1>
    <p>One copy of every tensor per machine: this server owns shared memory, and workers map it.</p>
    <ul>
      ${items.join("\n      ")}
    </ul>
  </body>
</html>
`;
}
