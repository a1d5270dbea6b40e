/** Each failure that an operation on models, or on the server itself, declares and that needs a world of its own. */

import { limits } from "../../../src/memory/limits.ts";
import { registerModel } from "../../../src/memory/sessions/models.ts";
import { askInVain, type FailureCase } from "./failure-case.ts";

export const modelCases: readonly FailureCase[] = [
  {
    operationId: "registerModel",
    code: "model-exists",
    provoke: async (app) => {
      await app.register("llama");
      return askInVain(app, "POST", "/v1/models", { name: "llama" });
    },
  },
  {
    operationId: "registerModel",
    code: "too-many-requests",
    provoke: (app) => {
      for (let count = app.store.books.models.size; count < limits.models; count++) {
        registerModel(app.store, `model-${count}`, new Map());
      }
      return askInVain(app, "POST", "/v1/models", { name: "one-more" });
    },
  },
  {
    operationId: "registerModel",
    code: "shutting-down",
    provoke: (app) => {
      app.store.stop();
      return askInVain(app, "POST", "/v1/models", { name: "llama" });
    },
  },
  {
    operationId: "unregisterModel",
    code: "model-in-use",
    provoke: async (app) => {
      await app.register("llama");
      await app.create({ model: "llama" });
      return askInVain(app, "DELETE", "/v1/models/llama");
    },
  },
  {
    operationId: "isReady",
    code: "shutting-down",
    provoke: (app) => {
      app.store.stop();
      return askInVain(app, "GET", "/readyz");
    },
  },
];
