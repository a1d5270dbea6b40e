/** Every row of the generator check, in the order of the table. */

import { heyApi } from "./hey-api/row.ts";
import { oapiCodegen } from "./oapi-codegen/row.ts";
import { ogen } from "./ogen/row.ts";
import { openApiGeneratorCSharp } from "./openapi-generator-csharp/row.ts";
import { openApiGeneratorGo } from "./openapi-generator-go/row.ts";
import { openApiGeneratorJava } from "./openapi-generator-java/row.ts";
import { openApiGeneratorKotlin } from "./openapi-generator-kotlin/row.ts";
import { openApiGeneratorPython } from "./openapi-generator-python/row.ts";
import { openApiGeneratorRust } from "./openapi-generator-rust/row.ts";
import { openApiGeneratorTypeScriptAxios } from "./openapi-generator-typescript-axios/row.ts";
import { openApiPythonClient } from "./openapi-python-client/row.ts";
import { openApiTypeScript } from "./openapi-typescript/row.ts";
import { progenitor } from "./progenitor/row.ts";
import type { Row } from "./row.ts";

export const rows: readonly Row[] = [
  openApiGeneratorGo,
  openApiGeneratorPython,
  openApiGeneratorTypeScriptAxios,
  oapiCodegen,
  ogen,
  openApiTypeScript,
  heyApi,
  openApiPythonClient,
  openApiGeneratorJava,
  openApiGeneratorKotlin,
  openApiGeneratorRust,
  openApiGeneratorCSharp,
  progenitor,
];
