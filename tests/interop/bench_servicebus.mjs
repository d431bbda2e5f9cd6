// How much the Service Bus emulator takes from `@azure/service-bus`, durability on, and in how much memory.
//
// It is measured on one machine that runs both, so that the numbers say as much about the client as about the emulator:
// they are for comparing one build with another. Not a test, and no part of the gate.
//
//     SERVICEBUS_EMULATOR_BIN=target/release/servicebus-emulator node tests/interop/bench_servicebus.mjs [messages]
//         [messages sent in batches]

import { readFileSync } from "node:fs";

import { Bus, PATIENCE_MS } from "./servicebus_js/bus.mjs";
import { CLIENT, VERSION } from "./servicebus_js/results.mjs";

const QUEUE = "load";
const BODY = Buffer.alloc(100);
const IN_FLIGHT = 100;
const BATCH = 100;
const [messages = 2_000, batched = 50_000] = process.argv.slice(2).map(Number);

const started = performance.now();
const bus = await Bus.open();
console.log(`${CLIENT} ${VERSION}, bodies of ${BODY.length} bytes, durable`);
console.log(`ready after ${Math.round(performance.now() - started)} ms, ${memory()} idle`);
console.log(`${"".padEnd(24)}${"messages".padStart(10)}${"per second".padStart(12)}${"memory".padStart(12)}`);

const sender = bus.sender(QUEUE);
const receiver = bus.receiver(QUEUE);
// Opens the links.
await sender.createMessageBatch();
await measure("send one by one", messages, async () => {
  for (let sent = 0; sent < messages; sent += 1) await sender.sendMessages({ body: BODY });
});
await measure(`send ${IN_FLIGHT} at a time`, messages, () =>
  inFlight(messages, () => sender.sendMessages({ body: BODY })),
);
await measure(`send batches of ${BATCH}`, batched, async () => {
  for (let sent = 0; sent < batched; sent += BATCH) {
    await sender.sendMessages(Array.from({ length: BATCH }, () => ({ body: BODY })));
  }
});
const waiting = 2 * messages + batched;
await measure("receive and complete", waiting, async () => {
  for (let received = 0; received < waiting;) {
    const batch = await receiver.receiveMessages(Math.min(BATCH, waiting - received), { maxWaitTimeInMs: PATIENCE_MS });
    if (batch.length === 0) throw new Error(`${waiting - received} messages never came`);
    await Promise.all(batch.map((message) => receiver.completeMessage(message)));
    received += batch.length;
  }
});
await bus.close();

async function measure(what, count, work) {
  const begin = performance.now();
  await work();
  const perSecond = Math.round((1_000 * count) / (performance.now() - begin));
  const cells = [
    count.toLocaleString("en").padStart(10),
    perSecond.toLocaleString("en").padStart(12),
    memory().padStart(12),
  ];
  console.log(what.padEnd(24) + cells.join(""));
}

async function inFlight(count, work) {
  let left = count;
  const worker = async () => {
    while (left > 0) {
      left -= 1;
      await work();
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
}

/** How much memory the emulator holds now. */
function memory() {
  const status = readFileSync(`/proc/${bus.emulator.processId}/status`, "utf8");
  return `${(Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) / 1024).toFixed(1)} MiB`;
}
