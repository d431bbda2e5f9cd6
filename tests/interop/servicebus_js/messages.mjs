// Sending, browsing and settling.

import assert from "node:assert/strict";

import {
  assertBetween,
  assertEmpty,
  bodies,
  consume,
  everythingIn,
  Long,
  PATIENCE_MS,
  serviceBusError,
  take,
  takeOne,
} from "./bus.mjs";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const MAX_MESSAGE_SIZE = 256 * 1024;

export const messages = {
  async "single-send"(bus) {
    const receiver = bus.receiver("plain");
    const sent = {
      body: { order: 17, items: ["tea", "Zürich"], paid: true, note: null },
      messageId: "m-1",
      contentType: "application/json",
      correlationId: "c-1",
      partitionKey: "p-1",
      subject: "order",
      to: "kitchen",
      replyTo: "answers",
      replyToSessionId: "rs-1",
      timeToLive: 600_000,
      applicationProperties: { colour: "red", quantity: 12 },
    };
    const before = Date.now();
    await bus.sender("plain").sendMessages(sent);
    const acknowledged = Date.now();
    const message = await takeOne(receiver);
    for (const [name, value] of Object.entries(sent)) assert.deepEqual(message[name], value, name);
    assert.deepEqual(message.sequenceNumber, Long.ONE);
    assert.equal(message.enqueuedSequenceNumber, 1);
    assert.equal(message.deliveryCount, 0);
    assert.equal(message.state, "active");
    assert.match(message.lockToken, UUID);
    assertBetween(message.enqueuedTimeUtc, before, acknowledged, "enqueuedTimeUtc");
    assert.equal(message.expiresAtUtc - message.enqueuedTimeUtc, 600_000);
    assertBetween(message.lockedUntilUtc, before + 60_000, Date.now() + 60_000, "lockedUntilUtc");
    for (const name of ["sessionId", "deadLetterReason", "deadLetterErrorDescription", "deadLetterSource"]) {
      assert.equal(message[name], undefined, name);
    }
    await receiver.completeMessage(message);

    // What is not said is not there, but for an id, which every message gets, and the entity's time to live.
    await bus.sender("plain").sendMessages({ body: "bare" });
    const bare = await takeOne(receiver);
    for (const name of [
      "contentType",
      "correlationId",
      "partitionKey",
      "subject",
      "to",
      "replyTo",
      "replyToSessionId",
    ]) {
      assert.equal(bare[name], undefined, name);
    }
    assert.equal(bare.body, "bare");
    assert.deepEqual(bare.applicationProperties ?? {}, {});
    assert.match(bare.messageId, /^[0-9a-f]{32}$/);
    assert.equal(bare.timeToLive, 3_600_000);
    assert.deepEqual(bare.sequenceNumber, Long.fromNumber(2));
    await receiver.completeMessage(bare);
    await assertEmpty(receiver);
  },

  async "batch-send"(bus) {
    const [sender, receiver] = [bus.sender("plain"), bus.receiver("plain")];
    const batch = await sender.createMessageBatch();
    assert.equal(batch.maxSizeInBytes, MAX_MESSAGE_SIZE);
    const body = (number) => `${number} `.padEnd(10_000, "x");
    let full = 0;
    while (batch.tryAddMessage({ body: body(full), messageId: `m-${full}`, applicationProperties: { full } }))
      full += 1;
    assert.equal(full, 26);
    assert.equal(batch.count, full);
    await sender.sendMessages(batch);
    await sender.sendMessages(["a", "b", "c"].map((body) => ({ body, subject: body.toUpperCase() })));

    const received = await consume(receiver, full + 3);
    const numbers = [...Array(full).keys()];
    assert.deepEqual(bodies(received), [...numbers.map(body), "a", "b", "c"]);
    assert.deepEqual(
      received.slice(0, full).map((message) => [message.messageId, message.applicationProperties]),
      numbers.map((number) => [`m-${number}`, { full: number }]),
    );
    assert.deepEqual(
      received.slice(full).map((message) => message.subject),
      ["A", "B", "C"],
    );
    assert.deepEqual(
      received.map((message) => message.sequenceNumber.toNumber()),
      [...Array(full + 3).keys()].map((n) => n + 1),
    );
    await assertEmpty(receiver);
  },

  async peek(bus) {
    const [sender, receiver] = [bus.sender("peeked"), bus.receiver("peeked")];
    await sender.sendMessages(["locked", "deferred", "abandoned", "active"].map((body) => ({ body, subject: body })));
    await sender.scheduleMessages({ body: "scheduled" }, new Date(Date.now() + 3_600_000));
    const [, second, third] = await take(receiver, 3);
    await receiver.deferMessage(second);
    await receiver.abandonMessage(third);

    const all = await everythingIn(receiver);
    assert.deepEqual(bodies(all), ["locked", "deferred", "abandoned", "active", "scheduled"]);
    assert.deepEqual(
      all.map((message) => message.state),
      ["active", "deferred", "active", "active", "scheduled"],
    );
    assert.deepEqual(
      all.map((message) => message.sequenceNumber.toNumber()),
      [1, 2, 3, 4, 5],
    );
    assert.deepEqual(
      all.map((message) => message.lockToken),
      Array(5).fill(undefined),
    );
    assert.deepEqual(
      all.slice(2).map((message) => message.deliveryCount),
      [1, 0, 0],
    );
    assert.equal(all[3].subject, "active");
    await assert.rejects(receiver.completeMessage(all[3]), /not supported for peeked messages/);

    const from = { fromSequenceNumber: Long.fromNumber(2) };
    assert.deepEqual(bodies(await receiver.peekMessages(2, from)), ["deferred", "abandoned"]);
    assert.deepEqual(await receiver.peekMessages(2, { fromSequenceNumber: Long.fromNumber(6) }), []);

    // Without a number, a client goes on where it was.
    const browser = bus.receiver("peeked", {}, bus.client());
    assert.deepEqual(bodies(await browser.peekMessages(2)), ["locked", "deferred"]);
    assert.deepEqual(bodies(await browser.peekMessages(3)), ["abandoned", "active", "scheduled"]);
    assert.deepEqual(await browser.peekMessages(1), []);
  },

  async complete(bus) {
    const receiver = bus.receiver("plain");
    await bus.sender("plain").sendMessages([{ body: "first" }, { body: "second" }]);
    const [first, second] = await take(receiver, 2);
    await receiver.completeMessage(second);
    assert.deepEqual(bodies(await everythingIn(receiver)), ["first"]);
    await receiver.completeMessage(first);
    await assertEmpty(receiver);
    await assert.rejects(receiver.completeMessage(first), /already settled/);

    // Its receiver may be gone: then the message is settled through $management.
    const gone = bus.receiver("plain");
    await bus.sender("plain").sendMessages({ body: "third" });
    const third = await takeOne(gone);
    await gone.close();
    await receiver.completeMessage(third);
    await assertEmpty(receiver);
  },

  async "abandon-with-properties"(bus) {
    const receiver = bus.receiver("plain");
    const at = new Date("2026-12-24T17:00:05.250Z");
    await bus.sender("plain").sendMessages({ body: "x", applicationProperties: { colour: "red", note: "first" } });
    const first = await takeOne(receiver);
    await receiver.abandonMessage(first, { note: "again", attempt: 2, ratio: 0.5, urgent: true, at });
    const second = await takeOne(receiver);
    assert.equal(second.deliveryCount, 1);
    assert.deepEqual(second.sequenceNumber, first.sequenceNumber);
    assert.deepEqual(second.enqueuedTimeUtc, first.enqueuedTimeUtc);
    assert.notEqual(second.lockToken, first.lockToken);
    const properties = { colour: "red", note: "again", attempt: 2, ratio: 0.5, urgent: true, at: at.getTime() };
    assert.deepEqual(second.applicationProperties, properties);
    await receiver.completeMessage(second);

    // As often as the queue lets it.
    await bus.sender("one-try").sendMessages({ body: "y" });
    const oneTry = bus.receiver("one-try");
    await oneTry.abandonMessage(await takeOne(oneTry), { note: "last" });
    await assertEmpty(oneTry);
    const dead = await takeOne(bus.deadLetters("one-try"));
    assert.equal(dead.body, "y");
    assert.equal(dead.deadLetterReason, "MaxDeliveryCountExceeded");
    assert.equal(dead.deadLetterErrorDescription, "Message could not be consumed after 1 delivery attempts.");
    assert.equal(dead.applicationProperties.note, "last");
  },

  async "dead-letter-with-reason"(bus) {
    const receiver = bus.receiver("plain");
    await bus
      .sender("plain")
      .sendMessages([
        { body: "with", messageId: "w", subject: "s", timeToLive: 600_000, applicationProperties: { colour: "red" } },
        { body: "without" },
      ]);
    const [first, second] = await take(receiver, 2);
    await receiver.deadLetterMessage(first, {
      deadLetterReason: "unreadable",
      deadLetterErrorDescription: "no order in it: «Zürich»",
      colour: "blue",
      attempt: 3,
    });
    await receiver.deadLetterMessage(second);
    await assertEmpty(receiver);

    const [dead, bare] = await take(bus.deadLetters("plain"), 2);
    assert.equal(dead.body, "with");
    assert.equal(dead.messageId, "w");
    assert.equal(dead.subject, "s");
    assert.equal(dead.deadLetterReason, "unreadable");
    assert.equal(dead.deadLetterErrorDescription, "no order in it: «Zürich»");
    assert.deepEqual(dead.applicationProperties, {
      colour: "blue",
      attempt: 3,
      DeadLetterReason: "unreadable",
      DeadLetterErrorDescription: "no order in it: «Zürich»",
    });
    assert.equal(dead.deliveryCount, 1);
    assert.deepEqual(dead.enqueuedTimeUtc, first.enqueuedTimeUtc);
    assert.equal(dead.enqueuedSequenceNumber, 1);
    // Documented as set only where a dead-letter queue forwards.
    assert.equal(dead.deadLetterSource, undefined);
    assert.equal(bare.body, "without");
    assert.equal(bare.deadLetterReason, undefined);
    assert.equal(bare.deadLetterErrorDescription, undefined);
  },

  async "dead-letter-queue"(bus) {
    const receiver = bus.receiver("plain");
    const deadLetters = bus.deadLetters("plain");
    await bus.sender("plain").sendMessages(["a", "b", "c"].map((body) => ({ body, messageId: `id-${body}` })));
    for (const message of await take(receiver, 3)) {
      await receiver.deadLetterMessage(message, { deadLetterReason: message.body, deadLetterErrorDescription: "d" });
    }
    assert.deepEqual(bodies(await everythingIn(deadLetters)), ["a", "b", "c"]);

    // Abandoned there, it stays there, however often.
    const first = await takeOne(deadLetters);
    await deadLetters.abandonMessage(first, { looked: true });
    const [again, ...others] = await take(deadLetters, 3);
    assert.equal(again.body, "a");
    assert.equal(again.deliveryCount, first.deliveryCount + 1);
    assert.deepEqual(again.applicationProperties, {
      DeadLetterReason: "a",
      DeadLetterErrorDescription: "d",
      looked: true,
    });

    // Sent again to where it came from.
    await bus.sender("plain").sendMessages(again);
    await deadLetters.completeMessage(again);
    for (const other of others) await deadLetters.completeMessage(other);
    await assertEmpty(deadLetters);
    const [resent] = await consume(receiver);
    assert.equal(resent.body, "a");
    assert.equal(resent.messageId, "id-a");
    assert.equal(resent.deliveryCount, 0);

    const subscription = bus.receiver("fan/s1");
    await bus.sender("fan").sendMessages({ body: "for a subscription" });
    await subscription.deadLetterMessage(await takeOne(subscription), {
      deadLetterReason: "why",
      deadLetterErrorDescription: "because",
    });
    const [dead] = await consume(bus.deadLetters("fan/s1"));
    assert.deepEqual([dead.body, dead.deadLetterReason], ["for a subscription", "why"]);
  },

  async defer(bus) {
    const receiver = bus.receiver("deferred");
    const sequence = (message) => message.sequenceNumber;
    await bus.sender("deferred").sendMessages(["a", "b", "c", "d"].map((body) => ({ body })));
    const [a, b, c, d] = await take(receiver, 4);
    await receiver.deferMessage(a, { why: "later" });
    for (const message of [b, c]) await receiver.deferMessage(message);
    await receiver.abandonMessage(d);
    assert.deepEqual(bodies(await consume(receiver)), ["d"]);
    assert.deepEqual(
      (await everythingIn(receiver)).map((message) => [message.body, message.state]),
      [
        ["a", "deferred"],
        ["b", "deferred"],
        ["c", "deferred"],
      ],
    );

    const before = Date.now();
    const [again] = await receiver.receiveDeferredMessages(sequence(a));
    assert.equal(again.body, "a");
    assert.deepEqual(again.sequenceNumber, sequence(a));
    assert.deepEqual(again.applicationProperties, { why: "later" });
    assert.match(again.lockToken, UUID);
    assertBetween(again.lockedUntilUtc, before + 60_000, Date.now() + 60_000, "lockedUntilUtc");
    // Under a lock it is not there for anybody else.
    const another = bus.receiver("deferred", {}, bus.client());
    await assert.rejects(
      another.receiveDeferredMessages([sequence(b), sequence(a)]),
      serviceBusError("MessageNotFound"),
    );
    assertBetween(await receiver.renewMessageLock(again), before + 60_000, Date.now() + 60_000, "the renewed lock");
    await receiver.completeMessage(again);
    await assert.rejects(receiver.receiveDeferredMessages(sequence(a)), serviceBusError("MessageNotFound"));

    // Abandoned, it stays deferred.
    const both = await receiver.receiveDeferredMessages([sequence(c), sequence(b)]);
    assert.deepEqual(bodies(both), ["c", "b"]);
    await receiver.abandonMessage(both[0], { attempt: 2 });
    await receiver.deadLetterMessage(both[1], {
      deadLetterReason: "old",
      deadLetterErrorDescription: "too old",
      kept: 1,
    });
    const [remaining] = await everythingIn(receiver);
    assert.deepEqual([remaining.body, remaining.state], ["c", "deferred"]);
    const [dead] = await consume(bus.deadLetters("deferred"));
    assert.deepEqual([dead.body, dead.deadLetterReason, dead.deadLetterErrorDescription], ["b", "old", "too old"]);
    assert.equal(dead.applicationProperties.kept, 1);

    const remover = bus.receiver("deferred", { receiveMode: "receiveAndDelete" });
    const [removed] = await remover.receiveDeferredMessages(sequence(c));
    assert.deepEqual([removed.body, removed.applicationProperties], ["c", { attempt: 2 }]);
    assert.equal(removed.lockToken, undefined);
    await assertEmpty(receiver);
  },

  async "receive-and-delete"(bus) {
    const receiver = bus.receiver("plain", { receiveMode: "receiveAndDelete" });
    await bus.sender("plain").sendMessages(["a", "b", "c"].map((body) => ({ body })));
    const received = await take(receiver, 2);
    assert.deepEqual(bodies(received), ["a", "b"]);
    assert.deepEqual(
      received.map((message) => message.lockToken),
      [undefined, undefined],
    );
    assert.deepEqual(
      received.map((message) => message.deliveryCount),
      [0, 0],
    );
    assert.deepEqual(bodies(await everythingIn(receiver)), ["c"]);
    await assert.rejects(receiver.completeMessage(received[0]), /not supported in 'receiveAndDelete' receive mode/);
    assert.deepEqual(bodies(await take(receiver, 1)), ["c"]);
    await assertEmpty(receiver);
  },

  async drain(bus) {
    // Who asks for more than there is gets what there is, and nothing of what comes once that has been given up.
    const [eager, other] = [bus.receiver("plain"), bus.receiver("plain", {}, bus.client())];
    await bus.sender("plain").sendMessages(["a", "b", "c"].map((body) => ({ body })));
    const received = await eager.receiveMessages(10, { maxWaitTimeInMs: PATIENCE_MS });
    assert.deepEqual(bodies(received), ["a", "b", "c"]);
    assert.deepEqual(await other.receiveMessages(10, { maxWaitTimeInMs: 100 }), []);
    for (const body of ["d", "e"]) {
      await bus.sender("plain").sendMessages({ body });
      const [message] = await consume(body === "d" ? other : eager);
      assert.deepEqual([message.body, message.deliveryCount], [body, 0]);
    }
    for (const message of received) await eager.completeMessage(message);
    await assertEmpty(eager);
  },

  async "large-message"(bus) {
    const [sender, receiver] = [bus.sender("large"), bus.receiver("large")];
    const size = 200 * 1024;
    const bytes = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7919) >> 8));
    const text = "é".repeat(size / 2);
    await sender.sendMessages({ body: bytes });
    await sender.sendMessages({ body: text });
    await sender.scheduleMessages({ body: bytes }, new Date(Date.now() + 3_600_000));
    const peeked = [];
    while (peeked.length < 3) {
      const fromSequenceNumber = Long.fromNumber(peeked.length + 1);
      peeked.push(...(await receiver.peekMessages(3, { fromSequenceNumber })));
    }
    assert.ok(bytes.equals(peeked[0].body));
    assert.equal(peeked[1].body, text);
    assert.ok(bytes.equals(peeked[2].body));
    const received = await consume(receiver, 2);
    assert.ok(bytes.equals(received[0].body));
    assert.equal(received[1].body, text);
  },
};
