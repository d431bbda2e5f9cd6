// What this client could do, step by step, for the table that `servicebus_table.py` prints.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const FOLDER = new URL("../../../target/interop/servicebus-table/", import.meta.url);
const { version } = JSON.parse(
  readFileSync(new URL("../node_modules/@azure/service-bus/package.json", import.meta.url), "utf8"),
);
const NOT_IN_THE_SDK = { transactions: "it has no way to send or settle in a transaction" };
const PLAIN_HTTP = "with a policy in its pipeline that asks http: instead of https:, which is built in";
const NOTES = {
  "admin-entities": PLAIN_HTTP,
  "admin-rules": `${PLAIN_HTTP}; without parameters of SQL expressions, which the emulator refuses`,
};

export const CLIENT = "@azure/service-bus";
export const VERSION = `${version} (Node ${process.version})`;

export class Results {
  #steps;

  /** A step that does not come to its end has failed. */
  constructor(steps) {
    this.#steps = {
      ...Object.fromEntries(steps.map((step) => [step, "fail"])),
      ...Object.fromEntries(Object.keys(NOT_IN_THE_SDK).map((step) => [step, "not in the SDK"])),
    };
    this.#write();
  }

  passed(step) {
    this.#steps[step] = "pass";
    this.#write();
  }

  #write() {
    mkdirSync(FOLDER, { recursive: true });
    const column = { client: CLIENT, version: VERSION, steps: this.#steps, notes: { ...NOTES, ...NOT_IN_THE_SDK } };
    writeFileSync(new URL("js.json", FOLDER), `${JSON.stringify(column, null, 2)}\n`);
  }
}
