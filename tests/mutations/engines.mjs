/** Mistakes in what workers share of what an engine makes of a model. */

const python = "clients/python/src/tensord";
const tests = "clients/python/tests";

export const enginesMutations = [
  {
    name: "a module of other weights is taken for the one that is asked for",
    file: `${python}/torch/fingerprint.py`,
    find: "hashlib.sha256(self.text.encode())",
    replace: "hashlib.sha256(__version__.encode())",
    test: [`${tests}/test_share_module.py`, "test_another_fingerprint_is_another_version"],
  },
  {
    name: "another version of torch takes what was built with this one",
    file: `${python}/torch/fingerprint.py`,
    find: `, "torch": str(import_torch().__version__)`,
    replace: `, "torch": str(import_torch().__name__)`,
    test: [`${tests}/test_share_module.py`, "test_versions_of_the_libraries"],
  },
  {
    name: "a model that changes while it is packed is kept",
    file: `${python}/onnx/session.py`,
    find: "        if identify(file) != files:\n",
    replace: "        if not files:\n",
    test: [`${tests}/test_onnx.py`, "test_a_model_that_changes_while_it_is_packed"],
  },
  {
    name: "options of a session that decide what is packed are not looked at",
    file: `${python}/onnx/key.py`,
    find: `        "options": options.mark,\n`,
    replace: "",
    test: [`${tests}/test_onnx.py`, "test_what_decides_what_is_packed_names_the_version"],
  },
];
