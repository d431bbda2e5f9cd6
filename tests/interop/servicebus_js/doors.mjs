// One state, two doors: what REST sends, AMQP receives, and the other way round.

import assert from "node:assert/strict";

import rhea from "rhea";

import { assertEmpty, consume, takeOne } from "./bus.mjs";

const { types: amqp } = rhea;
const DATE = new Date("2026-12-24T17:00:05Z");

export const doors = {
  async "rest-to-amqp"(bus) {
    const raw = bus.receiver("rest", { skipParsingBodyAsJson: true, skipConvertingDate: true });
    const broker = {
      MessageId: "m-1",
      CorrelationId: "c-1",
      Label: "order",
      To: "kitchen",
      ReplyTo: "answers",
      ReplyToSessionId: "rs-1",
      PartitionKey: "p-1",
      TimeToLive: 90.5,
    };
    const sent = await bus.emulator.rest(
      "POST",
      "rest/messages",
      {
        "Content-Type": "application/json",
        BrokerProperties: JSON.stringify(broker),
        text: '"Zurich"',
        digits: '"5"',
        whole: "5",
        negative: "-7",
        real: "5.5",
        yes: "true",
        when: `"${DATE.toUTCString()}"`,
      },
      '{"order":17}',
    );
    assert.equal(sent.status, 201);
    const message = await takeOne(raw);
    assert.deepEqual(message.body, Buffer.from('{"order":17}'));
    assert.equal(message._rawAmqpMessage.bodyType, "data");
    assert.equal(message.contentType, "application/json");
    assert.equal(message.messageId, "m-1");
    assert.equal(message.correlationId, "c-1");
    assert.equal(message.subject, "order");
    assert.equal(message.to, "kitchen");
    assert.equal(message.replyTo, "answers");
    assert.equal(message.replyToSessionId, "rs-1");
    assert.equal(message.partitionKey, "p-1");
    assert.equal(message.timeToLive, 90_500);
    assert.equal(message.deliveryCount, 0);
    assert.deepEqual(message.applicationProperties, {
      text: "Zurich",
      digits: "5",
      whole: 5,
      negative: -7,
      real: 5.5,
      yes: true,
      when: DATE,
    });
    // Received here, it is settled at either door.
    const settled = await bus.emulator.rest("DELETE", `rest/messages/${message.sequenceNumber}/${message.lockToken}`);
    assert.equal(settled.status, 200);
    await assertEmpty(raw);

    const batch = [
      { Body: "first", BrokerProperties: { Label: "one" }, UserProperties: { OrderId: "A-17", Attempt: 3, Vip: true } },
      { Body: "zweite, über alles", BrokerProperties: { TimeToLiveTimeSpan: "0.00:01:30" } },
    ];
    const type = "application/vnd.microsoft.servicebus.json";
    const answer = await bus.emulator.rest("POST", "rest/messages", { "Content-Type": type }, JSON.stringify(batch));
    assert.equal(answer.status, 201);
    const [first, second] = await consume(raw, 2);
    assert.equal(first.body.toString(), "first");
    assert.equal(first.subject, "one");
    assert.deepEqual(first.applicationProperties, { OrderId: "A-17", Attempt: 3, Vip: true });
    assert.equal(second.body.toString(), "zweite, über alles");
    assert.equal(second.timeToLive, 90_000);
  },

  async "amqp-to-rest"(bus) {
    await bus.sender("rest").sendMessages({
      body: { order: 17 },
      contentType: "application/json",
      messageId: "m-1",
      correlationId: "c-1",
      subject: "order",
      to: "kitchen",
      replyTo: "answers",
      partitionKey: "p-1",
      timeToLive: 90_500,
      applicationProperties: {
        text: "Zurich",
        whole: 2,
        real: amqp.wrap_double(2),
        fraction: 0.5,
        yes: true,
        when: DATE,
      },
    });
    const locked = await bus.emulator.rest("POST", "rest/messages/head?timeout=5");
    assert.equal(locked.status, 201);
    assert.equal(locked.body.toString(), '{"order":17}');
    assert.equal(locked.headers["content-type"], "application/json");
    const properties = JSON.parse(locked.headers.brokerproperties);
    for (const [name, value] of Object.entries({
      MessageId: "m-1",
      CorrelationId: "c-1",
      Label: "order",
      To: "kitchen",
      ReplyTo: "answers",
      PartitionKey: "p-1",
      TimeToLive: 90.5,
      DeliveryCount: 1,
      SequenceNumber: 1,
      State: "Active",
    })) {
      assert.equal(properties[name], value, name);
    }
    assert.equal(locked.headers.text, '"Zurich"');
    assert.equal(locked.headers.whole, "2");
    assert.equal(locked.headers.real, "2.0");
    assert.equal(locked.headers.fraction, "0.5");
    assert.equal(locked.headers.yes, "true");
    assert.equal(locked.headers.when, `"${DATE.toUTCString()}"`);

    // Given back at one door, it is there at the other.
    const [, path] = new URL(locked.headers.location).pathname.match(/^\/(.*)$/);
    assert.equal((await bus.emulator.rest("PUT", path)).status, 200);
    const receiver = bus.receiver("rest");
    const again = await takeOne(receiver);
    assert.deepEqual([again.body, again.deliveryCount], [{ order: 17 }, 1]);
    await receiver.deadLetterMessage(again, { deadLetterReason: "r", deadLetterErrorDescription: "d" });
    const dead = await bus.emulator.rest("DELETE", "rest/$deadletterqueue/messages/head?timeout=5");
    assert.equal(dead.status, 200);
    assert.equal(dead.headers.deadletterreason, '"r"');
    assert.equal(dead.headers.deadlettererrordescription, '"d"');
    await assertEmpty(receiver);
  },
};
