// Topics, their rules, and forwarding.

import assert from "node:assert/strict";

import { assertEmpty, bodies, consume, serviceBusError, take, takeOne } from "./bus.mjs";

/** The fields of a filter that say something: the others are null. */
function said(filter) {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value != null));
}

export const topics = {
  async "topic-fan-out"(bus) {
    const [one, two] = [bus.receiver("fan/s1"), bus.receiver("fan/s2")];
    await bus.sender("fan").sendMessages([{ body: "a", messageId: "id-a" }, { body: "b" }]);
    for (const receiver of [one, two]) {
      const received = await take(receiver, 2);
      assert.deepEqual(bodies(received), ["a", "b"]);
      assert.equal(received[0].messageId, "id-a");
      assert.deepEqual(
        received.map((message) => message.enqueuedSequenceNumber),
        [1, 2],
      );
      assert.deepEqual(
        received.map((message) => message.sequenceNumber.toNumber()),
        [1, 2],
      );
      // What becomes of one copy is nothing to the other.
      if (receiver === one) {
        await receiver.completeMessage(received[0]);
        await receiver.abandonMessage(received[1], { attempt: 2 });
      } else {
        assert.deepEqual(
          received.map((message) => message.deliveryCount),
          [0, 0],
        );
        assert.deepEqual(received[1].applicationProperties ?? {}, {});
        for (const message of received) await receiver.completeMessage(message);
      }
    }
    const [again] = await consume(one);
    assert.deepEqual([again.body, again.deliveryCount, again.applicationProperties], ["b", 1, { attempt: 2 }]);
    for (const receiver of [one, two]) await assertEmpty(receiver);
  },

  async "sql-filter-and-action"(bus) {
    const orders = [
      { quantity: 12, colour: "red" },
      { quantity: 10, colour: "red" },
      { quantity: 12.5, colour: "blue" },
      { quantity: 100, colour: "green" },
      { quantity: "12", colour: "red" },
      { colour: "red" },
    ];
    await bus
      .sender("filtered")
      .sendMessages(orders.map((applicationProperties, body) => ({ body, applicationProperties })));
    const matching = await consume(bus.receiver("filtered/sql"), 2);
    assert.deepEqual(
      matching.map((message) => [message.body, message.applicationProperties]),
      [
        [0, { quantity: 12, doubled: 24, priority: "high" }],
        [2, { quantity: 12.5, doubled: 25, priority: "high" }],
      ],
    );
    await assertEmpty(bus.receiver("filtered/sql"));
    // The copies of other subscriptions are as they were sent.
    const all = await consume(bus.receiver("filtered/all"), orders.length);
    assert.deepEqual(
      all.map((message) => message.applicationProperties),
      orders,
    );
    await assertEmpty(bus.receiver("filtered/none"));
  },

  async "correlation-filter"(bus) {
    const important = { correlationId: "important" };
    await bus.sender("filtered").sendMessages([
      { body: "both", ...important, applicationProperties: { colour: "red", other: 1 } },
      { body: "another id", correlationId: "unimportant", applicationProperties: { colour: "red" } },
      { body: "another colour", ...important, applicationProperties: { colour: "blue" } },
      { body: "no colour", ...important },
      { body: "no id", applicationProperties: { colour: "red" } },
    ]);
    const receiver = bus.receiver("filtered/correlation");
    const [message] = await consume(receiver);
    assert.equal(message.body, "both");
    assert.equal(message.correlationId, "important");
    assert.deepEqual(message.applicationProperties, { colour: "red", other: 1 });
    await assertEmpty(receiver);
  },

  async forwarding(bus) {
    const target = bus.receiver("forwards-to");
    await bus.sender("forwards-from").sendMessages({ body: "from a queue", messageId: "id" });
    const fromQueue = await takeOne(target);
    assert.deepEqual([fromQueue.body, fromQueue.messageId, fromQueue.deliveryCount], ["from a queue", "id", 0]);
    assert.equal(fromQueue.enqueuedSequenceNumber, 1);
    await target.completeMessage(fromQueue);
    await bus.sender("forwarding-topic").sendMessages({ body: "from a topic" });
    assert.deepEqual(bodies(await consume(target)), ["from a topic"]);
    // Nothing can be received where messages only pass.
    await assert.rejects(
      bus.receiver("forwards-from").receiveMessages(1, { maxWaitTimeInMs: 1_000 }),
      (error) => error.name === "ServiceBusError" && error.code !== "ServiceTimeout",
    );

    const mortal = bus.receiver("forwards-dead");
    await bus.sender("forwards-dead").sendMessages({ body: "dead" });
    await mortal.deadLetterMessage(await takeOne(mortal), { deadLetterReason: "r", deadLetterErrorDescription: "d" });
    const [dead] = await consume(bus.receiver("dead-letters"));
    assert.deepEqual([dead.body, dead.deadLetterReason, dead.deadLetterErrorDescription], ["dead", "r", "d"]);
    assert.equal(dead.deadLetterSource, "forwards-dead");
    assert.equal(dead.deliveryCount, 0);
  },

  async rules(bus) {
    const manager = bus.sb.createRuleManager("ruled", "rules");
    const [sender, receiver] = [bus.sender("ruled"), bus.receiver("ruled/rules")];
    const listed = async () => {
      const rules = [];
      for await (const { name, filter, action } of manager.listRules())
        rules.push({ name, filter: said(filter), action });
      return rules.sort((one, other) => (one.name < other.name ? -1 : 1));
    };
    const everything = { name: "$Default", filter: { sqlExpression: "1=1" }, action: {} };
    assert.deepEqual(await listed(), [everything]);

    await manager.createRule("large", { sqlExpression: "quantity > 10" }, { sqlExpression: "SET size = 'large'" });
    const correlation = {
      subject: "order",
      correlationId: "c",
      applicationProperties: { colour: "red", express: true },
    };
    await manager.createRule("red", correlation);
    await manager.createRule("never", { sqlExpression: "1=0" });
    const rules = [
      everything,
      { name: "large", filter: { sqlExpression: "quantity > 10" }, action: { sqlExpression: "SET size = 'large'" } },
      { name: "never", filter: { sqlExpression: "1=0" }, action: {} },
      { name: "red", filter: correlation, action: {} },
    ];
    assert.deepEqual(await listed(), rules);
    const pages = [];
    for await (const page of manager.listRules().byPage({ maxPageSize: 3 })) pages.push(page.length);
    assert.deepEqual(pages, [3, 1]);

    await assert.rejects(
      manager.createRule("large", { sqlExpression: "1=1" }),
      serviceBusError("MessagingEntityAlreadyExists"),
    );
    await assert.rejects(
      manager.createRule("broken", { sqlExpression: "quantity >" }),
      serviceBusError("GeneralError"),
    );
    await assert.rejects(manager.deleteRule("missing"), serviceBusError("MessagingEntityNotFound"));
    assert.deepEqual(await listed(), rules);

    await manager.deleteRule("$Default");
    await sender.sendMessages([
      { body: "small", applicationProperties: { quantity: 1 } },
      { body: "large", applicationProperties: { quantity: 11 } },
      { body: "red", subject: "order", correlationId: "c", applicationProperties: { colour: "red", express: true } },
      { body: "slow", subject: "order", correlationId: "c", applicationProperties: { colour: "red", express: false } },
    ]);
    const received = await consume(receiver, 2);
    assert.deepEqual(
      received.map((message) => [message.body, message.applicationProperties]),
      [
        ["large", { quantity: 11, size: "large" }],
        ["red", { colour: "red", express: true }],
      ],
    );
    await assertEmpty(receiver);
  },
};
