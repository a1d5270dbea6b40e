/** What `tensord --version` says: the version, and the commit that an executable was built from. */

import packageJson from "../../../package.json" with { type: "json" };

/** Put in by `npm run build`; sources do not know what they are of. */
declare const TENSORD_COMMIT: string | undefined;

/** As `0.1.0 (commit 1a2b3c4d5e6f)`, or `0.1.0 (sources)`. */
export const versionText = `${packageJson.version} (${typeof TENSORD_COMMIT === "undefined" ? "sources" : `commit ${TENSORD_COMMIT}`})`;
