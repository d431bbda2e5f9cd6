// Connections: many, broken ones, refused ones, and receivers that wait for messages instead of asking for them.

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import { assertEmpty, bodies, consume, everythingIn, PATIENCE_MS, serviceBusError, take, until } from "./bus.mjs";

const RECEIVERS = 100;

function unexpected({ error }) {
  throw error;
}

export const connections = {
  async subscribe(bus) {
    const sender = bus.sender("plain");
    await sender.sendMessages(["a", "fails once", "b"].map((body) => ({ body })));
    const [seen, errors] = [[], []];
    const subscription = bus.receiver("plain").subscribe({
      async processMessage(message) {
        seen.push([message.body, message.deliveryCount]);
        if (message.body === "fails once" && message.deliveryCount === 0) throw new Error("not yet");
      },
      async processError({ error, errorSource, entityPath }) {
        errors.push([error.message, errorSource, entityPath]);
      },
    });
    await until(() => seen.length === 4, "the four deliveries");
    assert.deepEqual(seen.toSorted(), [
      ["a", 0],
      ["b", 0],
      ["fails once", 0],
      ["fails once", 1],
    ]);
    assert.deepEqual(errors, [["not yet", "processMessageCallback", "plain"]]);
    // What comes later is delivered too, and completed by itself.
    await sender.sendMessages({ body: "later" });
    await until(() => seen.length === 5, "the later message");
    await until(async () => (await everythingIn(bus.receiver("plain"))).length === 0, "everything to be completed");
    await subscription.close();
    await sender.sendMessages({ body: "too late" });
    const iterator = bus.receiver("plain", {}, bus.client());
    for await (const message of iterator.getMessageIterator()) {
      assert.equal(message.body, "too late");
      await iterator.completeMessage(message);
      break;
    }
    assert.equal(seen.length, 5);

    const session = await bus.sb.acceptSession("sessions", "s");
    const inOrder = [];
    session.subscribe({ processMessage: async ({ body }) => inOrder.push(body), processError: unexpected });
    const numbers = [...Array(10).keys()];
    await bus.sender("sessions").sendMessages(numbers.map((body) => ({ body, sessionId: "s" })));
    await until(() => inOrder.length === numbers.length, "the session's messages");
    assert.deepEqual(inOrder, numbers);
    await until(async () => (await everythingIn(session)).length === 0, "the session's messages to be completed");
  },

  async "hundred-receivers"(bus) {
    // Each keeps its message until all have one: the messages are spread over all receivers, who wait at the same time.
    let allHold;
    const held = new Promise((resolve) => (allHold = resolve));
    const [bodiesSeen, errors] = [[], []];
    const subscriptions = Array.from({ length: RECEIVERS }, () =>
      bus.receiver("many", {}, bus.client()).subscribe({
        async processMessage({ body }) {
          bodiesSeen.push(body);
          if (bodiesSeen.length === RECEIVERS) allHold();
          await held;
        },
        async processError({ error }) {
          errors.push(error);
        },
      }),
    );
    const sender = bus.sender("many");
    const numbers = [...Array(5 * RECEIVERS).keys()];
    for (const number of numbers.slice(0, RECEIVERS)) await sender.sendMessages({ body: number });
    await Promise.race([
      held,
      delay(PATIENCE_MS, undefined, { ref: false }).then(() => assert.fail(`only ${bodiesSeen.length} hold a message`)),
    ]);
    await sender.sendMessages(numbers.slice(RECEIVERS).map((body) => ({ body })));
    await until(() => bodiesSeen.length >= numbers.length, "all messages");
    await until(async () => (await everythingIn(bus.receiver("many"))).length === 0, "all of them to be completed");
    assert.deepEqual(
      bodiesSeen.toSorted((one, other) => one - other),
      numbers,
    );
    assert.deepEqual(errors, []);
    await Promise.all(subscriptions.map((subscription) => subscription.close()));
  },

  async "reconnect-after-kill"(bus) {
    // What lies there when the power goes.
    const keeper = bus.client();
    await bus.sender("plain", keeper).sendMessages(["locked", "deferred", "dead", "active"].map((body) => ({ body })));
    const plain = bus.receiver("plain", { maxAutoLockRenewalDurationInMs: 0 }, keeper);
    const [, deferred, dead] = await take(plain, 3);
    await plain.deferMessage(deferred, { why: "later" });
    await plain.deadLetterMessage(dead, { deadLetterReason: "r", deadLetterErrorDescription: "d" });
    const due = new Date(Date.now() + 3_600_000);
    const [scheduled] = await bus.sender("plain", keeper).scheduleMessages({ body: "scheduled" }, due);
    const session = await keeper.acceptSession("sessions", "s");
    await session.setSessionState({ step: 1 });

    // One sends, one receives, and neither is told.
    const patient = { maxRetries: 50, retryDelayInMs: 100, timeoutInMs: 2_000 };
    const sender = bus.sender("reconnect", bus.client(patient));
    const receiver = bus.receiver("reconnect", {}, bus.client(patient));
    const [acknowledged, deliveries, completed, errors] = [[], [], new Set(), []];
    const subscription = receiver.subscribe(
      {
        async processMessage(message) {
          const number = message.sequenceNumber.toNumber();
          assert.ok(!completed.has(number), `message ${number} came again although it had been completed`);
          deliveries.push(message.body);
          await receiver.completeMessage(message);
          completed.add(number);
        },
        async processError({ error }) {
          errors.push(error);
        },
      },
      { autoCompleteMessages: false, maxConcurrentCalls: 5 },
    );
    const total = 600;
    const sending = (async () => {
      for (let number = 0; number < total; number += 1) {
        await sender.sendMessages({ body: number });
        acknowledged.push(number);
      }
    })();
    for (const kills of [1, 2]) {
      await until(
        () => acknowledged.length > kills * 150 && completed.size > kills * 100,
        "some to be sent and completed",
      );
      await bus.emulator.kill();
      await delay(200);
      await bus.emulator.startAgain();
    }
    await sending;
    const empty = async () => (await everythingIn(bus.receiver("reconnect"))).length === 0;
    await until(empty, "everything to be completed");
    await subscription.close();
    assert.deepEqual(acknowledged, [...Array(total).keys()]);
    assert.deepEqual(
      [...new Set(deliveries)].toSorted((one, other) => one - other),
      acknowledged,
    );
    for (const error of errors) assert.doesNotMatch(error.message, /came again/);

    // With connections of the time before.
    const all = await everythingIn(bus.receiver("plain", {}, keeper));
    assert.deepEqual(
      all.map((message) => [message.body, message.state]),
      [
        ["locked", "active"],
        ["deferred", "deferred"],
        ["active", "active"],
        ["scheduled", "scheduled"],
      ],
    );
    const again = await consume(bus.receiver("plain", {}, keeper), 2);
    assert.deepEqual(
      again.map((message) => [message.body, message.deliveryCount]),
      [
        ["locked", 1],
        ["active", 0],
      ],
    );
    const [later] = await bus.receiver("plain", {}, keeper).receiveDeferredMessages(deferred.sequenceNumber);
    assert.deepEqual([later.body, later.applicationProperties], ["deferred", { why: "later" }]);
    await bus.sender("plain", keeper).cancelScheduledMessages(scheduled);
    assert.deepEqual(bodies(await consume(bus.receiver("plain", { subQueueType: "deadLetter" }, keeper))), ["dead"]);
    // A session's receiver ends with its connection, and says so.
    await assert.rejects(session.getSessionState());
    const successor = await keeper.acceptSession("sessions", "s");
    assert.deepEqual(await successor.getSessionState(), { step: 1 });
  },

  async "unknown-entity"(bus) {
    const notFound = serviceBusError("MessagingEntityNotFound");
    const soon = { maxWaitTimeInMs: 1_000 };
    await assert.rejects(bus.sender("missing").sendMessages({ body: "x" }), notFound);
    await assert.rejects(bus.sender("missing").createMessageBatch(), notFound);
    await assert.rejects(bus.sender("missing").scheduleMessages({ body: "x" }, new Date()), notFound);
    await assert.rejects(bus.receiver("missing").receiveMessages(1, soon), notFound);
    await assert.rejects(bus.receiver("missing").peekMessages(1), notFound);
    await assert.rejects(bus.deadLetters("missing").receiveMessages(1, soon), notFound);
    await assert.rejects(bus.receiver("fan/missing").receiveMessages(1, soon), notFound);
    await assert.rejects(bus.receiver("missing/s1").receiveMessages(1, soon), notFound);
    await assert.rejects(bus.sb.acceptSession("missing", "s"), notFound);
    await assert.rejects(bus.sb.acceptNextSession("missing"), notFound);
    // The connection is none the worse for it, and names do not tell cases apart.
    await bus.sender("PLAIN").sendMessages({ body: "x" });
    assert.deepEqual(bodies(await consume(bus.receiver("Plain"))), ["x"]);
    await bus.sender("Fan").sendMessages({ body: "y" });
    assert.deepEqual(bodies(await consume(bus.receiver("fan/S1"))), ["y"]);
  },

  async "bad-key"(bus) {
    const good = bus.emulator.connectionString;
    const refused = serviceBusError("UnauthorizedAccess");
    for (const wrong of [
      good.replace("SharedAccessKey=SAS_KEY_VALUE", "SharedAccessKey=another"),
      good.replace("SharedAccessKeyName=RootManageSharedAccessKey", "SharedAccessKeyName=another"),
    ]) {
      assert.notEqual(wrong, good);
      const client = bus.client({}, wrong);
      await assert.rejects(bus.sender("plain", client).sendMessages({ body: "x" }), refused);
      await assert.rejects(bus.receiver("plain", {}, client).receiveMessages(1, { maxWaitTimeInMs: 1_000 }), refused);
      await assert.rejects(bus.receiver("plain", {}, client).peekMessages(1), refused);
      await assert.rejects(bus.administration(wrong).getQueue("plain"), {
        code: "UnauthorizedRequestError",
        statusCode: 401,
      });
    }
    await assertEmpty(bus.receiver("plain"));
  },

  async "message-too-large"(bus) {
    const sender = bus.sender("large");
    const tooLarge = serviceBusError("MessageSizeExceeded");
    const body = (size) => Buffer.alloc(size, "x");
    await assert.rejects(sender.sendMessages({ body: body(256 * 1024) }), tooLarge);
    await assert.rejects(sender.sendMessages({ body: body(1024 * 1024) }), tooLarge);
    const batch = await sender.createMessageBatch();
    assert.equal(batch.tryAddMessage({ body: body(256 * 1024) }), false);
    assert.equal(batch.tryAddMessage({ body: body(250 * 1024) }), true);
    assert.equal(batch.tryAddMessage({ body: body(6 * 1024) }), false);
    await sender.sendMessages(batch);
    // The sender goes on.
    await sender.sendMessages({ body: "small" });
    const receiver = bus.receiver("large");
    const [large, small] = await take(receiver, 2);
    assert.ok(body(250 * 1024).equals(large.body));
    assert.equal(small.body, "small");
    for (const message of [large, small]) await receiver.completeMessage(message);
    await assertEmpty(receiver);
    assert.equal((await bus.receiver("large").receiveMessages(1, { maxWaitTimeInMs: 100 })).length, 0);
  },
};
