// The scripted steps of the Service Bus emulator with `@azure/service-bus`, one test each. Every step has an emulator of
// its own, so that they run at the same time: `node --test servicebus.test.mjs` with SERVICEBUS_EMULATOR_BIN.

import { after, describe, it } from "node:test";

import { administration } from "./servicebus_js/administration.mjs";
import { Bus } from "./servicebus_js/bus.mjs";
import { connections } from "./servicebus_js/connections.mjs";
import { doors } from "./servicebus_js/doors.mjs";
import { messages } from "./servicebus_js/messages.mjs";
import { CLIENT, Results, VERSION } from "./servicebus_js/results.mjs";
import { sessions } from "./servicebus_js/sessions.mjs";
import { time } from "./servicebus_js/time.mjs";
import { topics } from "./servicebus_js/topics.mjs";
import { types } from "./servicebus_js/types.mjs";

const STEPS = { ...messages, ...time, ...topics, ...sessions, ...types, ...doors, ...connections, ...administration };
const AT_A_TIME = 6;
const TIME_LIMIT_MS = 60_000;
const CLOSING_MS = 3_000;

const results = new Results(Object.keys(STEPS));

describe(`${CLIENT} ${VERSION}`, { concurrency: AT_A_TIME }, () => {
  // A client that could not be closed has timers of up to three quarters of an hour.
  after(() => setTimeout(() => process.exit(), CLOSING_MS).unref());

  for (const [id, show] of Object.entries(STEPS)) {
    it(id, { timeout: TIME_LIMIT_MS }, async (test) => {
      const bus = await Bus.open();
      try {
        await show(bus);
      } catch (error) {
        await bus.abandon();
        for (const complaint of bus.emulator.complaints.split("\n")) {
          if (complaint !== "") test.diagnostic(`the emulator: ${complaint}`);
        }
        throw error;
      }
      await bus.close();
      results.passed(id);
    });
  }
});
