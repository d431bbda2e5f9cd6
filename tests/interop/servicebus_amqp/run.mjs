// What the SDKs do not show of the Service Bus emulator's AMQP, shown with `rhea` alone.
//
// `node run.mjs STEP PORT` takes one step against an emulator that has nothing in it, and fails with the assertion that
// does not hold. Without arguments it names the steps, one a line.

import * as links from "./links.mjs";
import * as settlement from "./settlement.mjs";
import * as transactions from "./transactions.mjs";
import * as wire from "./wire.mjs";

const steps = { ...links, ...settlement, ...transactions, ...wire };
const [step, port] = process.argv.slice(2);
if (step === undefined) {
  console.log(Object.keys(steps).join("\n"));
} else {
  await steps[step](Number(port));
}
