/** What `npm test` counts, from the reports of both runners, and from the lines of one that was killed before it wrote any. */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../harness/instance-needs.ts";

const { closingLine, LineCounts, readReport, sum } = await import(join(root, "scripts/lib/test-report.mjs"));

const folder = mkdtempSync(join(tmpdir(), "tensord-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

function report(xml: string) {
  const path = join(folder, "report.xml");
  writeFileSync(path, xml);
  return readReport(path);
}

test("Bun's report is counted as a whole, and each failure is told with its file, its claim and its words", () => {
  const xml = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="4" assertions="1" failures="2" skipped="1" time="30.02">
  <testsuite name="a.test.ts" file="a.test.ts" tests="4" assertions="0" failures="2" skipped="1" time="30.01">
    <testcase name="fine" classname="a group &gt; inside" time="0.00003" file="a.test.ts" line="2" assertions="0" />
    <testcase name="hangs" classname="" time="30.01" file="a.test.ts" line="3" assertions="0">
      <failure type="TimeoutError" message="test timed out" />
    </testcase>
    <testcase name="fails &quot;here&quot;" classname="" time="0.0007" file="a.test.ts" line="4" assertions="1">
      <failure type="AssertionError" message="1 &lt; 0&#10;">AssertionError: 1 &lt; 0&#10;&#10;      at a.test.ts:4:35&#10;</failure>
    </testcase>
    <testcase name="not here" classname="" time="0" file="a.test.ts" line="5" assertions="0"><skipped /></testcase>
  </testsuite>
</testsuites>`;
  expect(report(xml)).toEqual({
    counts: { passed: 1, failed: 2, skipped: 1 },
    passed: ["a group inside fine"],
    failures: [
      { test: "a.test.ts: hangs", text: "test timed out", isError: false },
      { test: 'a.test.ts: fails "here"', text: "AssertionError: 1 < 0\n\n      at a.test.ts:4:35", isError: false },
    ],
  });
});

test("pytest's report counts what could not be taken down as failed", () => {
  const xml =
    '<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" ' +
    'skipped="1" tests="5" time="9.566"><testcase classname="tests.test_a" name="test_one" time="0.001" />' +
    '<testcase classname="tests.test_a" name="test_s"><skipped type="pytest.skip" message="needs x">here</skipped></testcase>' +
    '<testcase classname="tests.test_a" name="test_fail[&lt;]" time="0.1"><failure message="assert 1 == 2">def test_fail()' +
    "</failure></testcase>" +
    '<testcase classname="tests.test_a" name="test_two"><error message="failed on teardown">left</error></testcase>' +
    "</testsuite></testsuites>";
  expect(report(xml)).toEqual({
    counts: { passed: 2, failed: 2, skipped: 1 },
    passed: ["tests.test_a test_one"],
    failures: [
      { test: "tests.test_a: test_fail[<]", text: "def test_fail()", isError: false },
      { test: "tests.test_a: test_two", text: "left", isError: true },
    ],
  });
});

test("without a report the lines count that were printed on the way, coloured or not", () => {
  expect(readReport(join(folder, "none.xml"))).toBeUndefined();
  const lines = new LineCounts();
  const printed = [
    ...[
      "bun test v1.4.5 2x PARALLEL",
      "tests/unit/a.test.ts:",
      "(pass) it holds [0.1ms]",
      "(fail) it does not [5.00ms]",
    ],
    ...["\u001b[32m(pass)\u001b[0m it holds", "(skip) not here [needs root]", " 2 pass", "the test (pass) is none"],
    ...[
      "tests/test_a.py::test_one ",
      "[gw1] [ 16%] PASSED tests/test_a.py::test_one ",
      "[gw0] [100%] FAILED tests/a.py::b ",
    ],
    ...["tests/test_a.py::test_s SKIPPED (needs x)      [ 83%]", "FAILED tests/a.py::b - assert 1 == 2"],
    ...["[gw0] [ 99%] ERROR tests/test_a.py::test_two "],
  ];
  for (const line of printed) lines.add(line);
  expect(lines.counts).toEqual({ passed: 3, failed: 3, skipped: 2 });
});

test("the line that closes a run tells of skipped tests where there are any", () => {
  const one = { passed: 1, failed: 0, skipped: 0 };
  expect(closingLine(sum([one, one]))).toBe("2 passed, 0 failed");
  expect(closingLine(sum([one, { passed: 0, failed: 2, skipped: 3 }]))).toBe("1 passed, 2 failed, 3 skipped");
});
