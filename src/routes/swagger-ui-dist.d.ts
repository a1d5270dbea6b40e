/** Assets of Swagger UI that `docs-page.ts` serves: imported as files, so that a compiled binary carries them. */

declare module "swagger-ui-dist/swagger-ui-bundle.js" {
  /** The file's path. */
  const path: string;

  export = path;
}

declare module "swagger-ui-dist/swagger-ui.css" {
  /** The file's path. */
  const path: string;

  export = path;
}
