// The Azure workbook that shows the queries: what `Workbooks` → `Advanced editor` takes, and what a template can deploy.
"use strict";

const CHARTS = { timechart: "timechart" };

function text(json) {
  return { type: 1, content: { json }, name: json.replace(/\W+/g, " ").trim().slice(0, 40) };
}

const PARAMETERS = {
  type: 9,
  content: {
    version: "KqlParameterItem/1.0",
    parameters: [
      {
        id: "6b1f0f6e-6c0b-4f4a-9d55-2f4b6c1d7a01",
        version: "KqlParameterItem/1.0",
        name: "TimeRange",
        label: "Time",
        type: 4,
        isRequired: true,
        value: { durationMs: 86400000 },
        typeSettings: {
          selectableValues: [3600000, 14400000, 86400000, 259200000, 604800000, 1209600000].map((durationMs) => ({ durationMs })),
          allowCustom: true,
        },
      },
      {
        id: "6b1f0f6e-6c0b-4f4a-9d55-2f4b6c1d7a02",
        version: "KqlParameterItem/1.0",
        name: "OrderId",
        label: "Order",
        type: 1,
        isRequired: false,
        value: "",
      },
    ],
    style: "pills",
    queryType: 0,
    resourceType: "microsoft.insights/components",
  },
  name: "parameters",
};

function item({ title, query }) {
  const chart = /\| render (\w+)$/.exec(query);
  return {
    type: 3,
    content: {
      version: "KqlItem/1.0",
      query,
      size: 0,
      title,
      timeContextFromParameter: "TimeRange",
      showExportToExcel: true,
      queryType: 0,
      resourceType: "microsoft.insights/components",
      visualization: chart ? CHARTS[chart[1]] : "table",
    },
    // An order's own tables are shown once there is an order to look for.
    ...(query.includes("{OrderId}") && {
      conditionalVisibility: { parameterName: "OrderId", comparison: "isNotEqualTo", value: "" },
    }),
    name: title,
  };
}

exports.workbook = (queries) => ({
  version: "Notebook/1.0",
  items: [
    text("## Orderup\nWhere is an order, what waits and why, who is down, what it costs. What to do about it: `docs/RUNBOOKS.md`."),
    PARAMETERS,
    ...queries.map(item),
  ],
  $schema: "https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json",
});
