// The queries of docs/QUERIES.md, read by Microsoft's own Kusto parser against the columns of Application Insights' tables:
// a name that is no column, a function that does not exist or a type that does not fit is an error. And the workbook has the
// same queries, each word for word.
//
// `--write` in place of the tests writes the workbook anew from the page.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");

require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next");
const { workbook } = require("./workbook.js");

/* global Kusto, Bridge */

const root = path.join(__dirname, "..", "..");
const PAGE = path.join(root, "docs", "QUERIES.md");
const WORKBOOK = path.join(root, "infra", "workbook.json");

// What all tables have, and what each has besides, as in Application Insights' reference of its tables.
const COMMON =
  "timestamp: datetime, itemType: string, itemId: string, itemCount: int, customDimensions: dynamic, customMeasurements: dynamic, " +
  "operation_Name: string, operation_Id: string, operation_ParentId: string, operation_SyntheticSource: string, session_Id: string, " +
  "user_Id: string, application_Version: string, client_Type: string, client_IP: string, cloud_RoleName: string, " +
  "cloud_RoleInstance: string, appId: string, appName: string, iKey: string, sdkVersion: string, _ResourceId: string, _BilledSize: real";
const TABLES = {
  traces: "message: string, severityLevel: int",
  requests:
    "id: string, source: string, name: string, url: string, success: string, resultCode: string, duration: real, performanceBucket: string",
  dependencies:
    "id: string, target: string, type: string, name: string, data: string, success: string, resultCode: string, duration: real",
  exceptions: "problemId: string, type: string, assembly: string, method: string, outerMessage: string, severityLevel: int",
  customMetrics:
    "name: string, value: real, valueCount: int, valueSum: real, valueMin: real, valueMax: real, valueStdDev: real",
};

// The columns' `success` are text in Application Insights, and may be compared with `true` and `false` all the same.
const globals = (() => {
  const { DatabaseSymbol, TableSymbol } = Kusto.Language.Symbols;
  const tables = Object.entries(TABLES).map(
    ([name, columns]) => new TableSymbol.$ctor7(name, `(${columns.replace("success: string", "success: bool")}, ${COMMON})`, null),
  );
  return Kusto.Language.GlobalState.Default.WithDatabase(new DatabaseSymbol.ctor("app", tables));
})();

function errors(query) {
  const code = Kusto.Language.KustoCode.ParseAndAnalyze(query, globals);
  return Bridge.toArray(code.GetDiagnostics())
    .filter((found) => found.Severity === "Error")
    .map((found) => `${found.Message} at ${query.slice(found.Start, found.Start + 40)}`);
}

const page = fs.readFileSync(PAGE, "utf8");
const queries = [...page.matchAll(/```kusto\n\/\/ (.*)\n([\s\S]*?)```/g)].map(([, title, query]) => ({
  title,
  query: query.trim(),
}));

if (process.argv.includes("--write")) {
  fs.writeFileSync(WORKBOOK, `${JSON.stringify(workbook(queries), null, 2)}\n`);
  process.exit(0);
}

test("the page has queries, each with a title of its own", () => {
  assert.ok(queries.length > 10, `${queries.length} queries`);
  assert.strictEqual(queries.length, page.match(/```kusto/g).length);
  assert.strictEqual(new Set(queries.map(({ title }) => title)).size, queries.length);
});

for (const { title, query } of queries) {
  test(title, () => assert.deepStrictEqual(errors(query), []));
}

test("the parser finds a column that is not there, a function that is not there, and what is no query", () => {
  assert.match(errors("traces | where mesage has 'x'").join(), /'mesage' does not refer/);
  assert.match(errors("traces | extend x = parse_jsn(message)").join(), /'parse_jsn' does not refer/);
  assert.match(errors("trace").join(), /'trace' does not refer/);
  assert.deepStrictEqual(errors("traces | where message has 'x'"), []);
  assert.notDeepStrictEqual(errors("traces | where"), []);
});

test("the workbook has the queries of the page", () => {
  const written = JSON.parse(fs.readFileSync(WORKBOOK, "utf8"));
  assert.deepStrictEqual(written, workbook(queries), "write it anew: node queries.test.js --write");
});
