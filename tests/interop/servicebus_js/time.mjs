// What the clock brings: schedules, the ends of locks and of messages, and what has been sent before.

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import {
  assertBetween,
  assertEmpty,
  bodies,
  consume,
  everythingIn,
  Long,
  serviceBusError,
  take,
  takeOne,
  until,
} from "./bus.mjs";

const LATER = new Date(Date.now() + 3_600_000);

export const time = {
  async schedule(bus) {
    const [sender, receiver] = [bus.sender("scheduled"), bus.receiver("scheduled")];
    const due = new Date(Date.now() + 3_000);
    const numbers = await sender.scheduleMessages([{ body: "a", messageId: "id-a" }, { body: "b" }], due);
    assert.deepEqual(numbers, [Long.ONE, Long.fromNumber(2)]);
    await sender.sendMessages({ body: "c", scheduledEnqueueTimeUtc: due });
    // A topic has its own numbers, and its subscriptions get nothing yet.
    assert.deepEqual(await bus.sender("fan").scheduleMessages({ body: "t" }, due), [Long.ONE]);
    await assertEmpty(bus.receiver("fan/s1"));
    const waiting = await everythingIn(receiver);
    assert.deepEqual(
      waiting.map((message) => [message.body, message.state, message.scheduledEnqueueTimeUtc]),
      ["a", "b", "c"].map((body) => [body, "scheduled", due]),
    );
    assert.deepEqual(await receiver.receiveMessages(1, { maxWaitTimeInMs: 100 }), []);

    const received = await consume(receiver, 3);
    assertBetween(new Date(), due, due.getTime() + 10_000, "the arrival");
    assert.deepEqual(bodies(received).sort(), ["a", "b", "c"]);
    for (const message of received) {
      assert.equal(message.state, "active");
      assert.deepEqual(message.scheduledEnqueueTimeUtc, due);
      assertBetween(message.enqueuedTimeUtc, due, Date.now(), "enqueuedTimeUtc");
      // It is as if it had been sent now: it has got a new number.
      assert.ok(message.sequenceNumber.toNumber() > 3, message.sequenceNumber.toString());
    }
    assert.equal(received.find((message) => message.body === "a").messageId, "id-a");
    for (const subscription of ["fan/s1", "fan/s2"]) {
      assert.deepEqual(bodies(await consume(bus.receiver(subscription))), ["t"]);
    }
  },

  async "cancel-scheduled"(bus) {
    const [sender, receiver] = [bus.sender("scheduled"), bus.receiver("scheduled")];
    const [a, b, c] = await sender.scheduleMessages(
      ["a", "b", "c"].map((body) => ({ body })),
      LATER,
    );
    await sender.cancelScheduledMessages(b);
    assert.deepEqual(bodies(await everythingIn(receiver)), ["a", "c"]);
    // All or none.
    await assert.rejects(sender.cancelScheduledMessages([a, b]), serviceBusError("MessageNotFound"));
    assert.deepEqual(bodies(await everythingIn(receiver)), ["a", "c"]);
    await sender.cancelScheduledMessages([c, a]);
    await assertEmpty(receiver);

    const topic = bus.sender("fan");
    const [number] = await topic.scheduleMessages({ body: "t" }, LATER);
    await topic.cancelScheduledMessages(number);
    await assert.rejects(topic.cancelScheduledMessages(number), serviceBusError("MessageNotFound"));
  },

  async "renew-lock"(bus) {
    const byHand = bus.receiver("short-lock", { maxAutoLockRenewalDurationInMs: 0 });
    const byItself = bus.receiver("short-lock");
    await bus.sender("short-lock").sendMessages([{ body: "by hand" }, { body: "by itself" }]);
    const one = await takeOne(byHand);
    const two = await takeOne(byItself);
    assert.deepEqual([one.body, two.body], ["by hand", "by itself"]);
    const firstEnd = one.lockedUntilUtc;

    // Nobody else gets either, while both locks would have ended.
    const competitor = bus.receiver("short-lock", {}, bus.client()).receiveMessages(1, { maxWaitTimeInMs: 7_000 });
    await delay(3_000);
    const before = Date.now();
    const renewed = await byHand.renewMessageLock(one);
    assertBetween(renewed, before + 5_000, Date.now() + 5_000, "the renewed lock");
    assert.ok(renewed - firstEnd > 2_000);
    assert.deepEqual(one.lockedUntilUtc, renewed);
    await delay(3_000);
    await byHand.renewMessageLock(one);
    assert.deepEqual(bodies(await competitor), []);
    await byHand.completeMessage(one);
    await byItself.completeMessage(two);
    await assertEmpty(byHand);
  },

  async "lock-lost"(bus) {
    const slow = bus.receiver("short-lock", { maxAutoLockRenewalDurationInMs: 0 });
    const other = bus.receiver("short-lock", {}, bus.client());
    await bus
      .sender("short-lock")
      .sendMessages(["completed", "abandoned", "dead-lettered", "deferred"].map((body) => ({ body })));
    const lost = await take(slow, 4);
    const again = await take(other, 4);
    assert.ok(new Date() >= lost[0].lockedUntilUtc);
    assert.deepEqual(bodies(again), bodies(lost));
    assert.deepEqual(
      again.map((message) => message.deliveryCount),
      [1, 1, 1, 1],
    );
    const lockLost = serviceBusError("MessageLockLost");
    await assert.rejects(slow.renewMessageLock(lost[0]), lockLost);
    await assert.rejects(slow.completeMessage(lost[0]), lockLost);
    await assert.rejects(slow.abandonMessage(lost[1]), lockLost);
    await assert.rejects(slow.deadLetterMessage(lost[2]), lockLost);
    await assert.rejects(slow.deferMessage(lost[3]), lockLost);
    // They are the other's, who can still settle them.
    for (const message of again) await other.completeMessage(message);
    await assertEmpty(other);
    await assertEmpty(bus.deadLetters("short-lock"));
  },

  async "duplicate-detection"(bus) {
    const [sender, receiver] = [bus.sender("dedup"), bus.receiver("dedup")];
    await sender.sendMessages({ body: "first", messageId: "a" });
    await sender.sendMessages({ body: "second", messageId: "a" });
    await sender.sendMessages([
      { body: "third", messageId: "b" },
      { body: "fourth", messageId: "b" },
      { body: "fifth", messageId: "c" },
    ]);
    await sender.sendMessages([{ body: "without an id" }, { body: "without an id" }]);
    assert.deepEqual(bodies(await consume(receiver, 5)), ["first", "third", "fifth", "without an id", "without an id"]);
    // The window is about what was sent, not about what is still there.
    await sender.sendMessages({ body: "sixth", messageId: "a" });
    await assertEmpty(receiver);
  },

  async "time-to-live"(bus) {
    const [expiring, vanishing] = [bus.receiver("expiring"), bus.receiver("vanishing")];
    await bus.sender("expiring").sendMessages([
      { body: "dies", timeToLive: 700 },
      { body: "lives", timeToLive: 600_000 },
    ]);
    await bus.sender("vanishing").sendMessages({ body: "gone", timeToLive: 700 });

    const [dead] = await consume(bus.deadLetters("expiring"));
    assert.equal(dead.body, "dies");
    assert.equal(dead.deadLetterReason, "TTLExpiredException");
    assert.equal(dead.deadLetterErrorDescription, "The message expired and was dead lettered.");
    assert.equal(dead.timeToLive, 700);
    assertBetween(new Date(), dead.enqueuedTimeUtc.getTime() + 700, Date.now(), "the end");
    const [living] = await consume(expiring);
    assert.equal(living.body, "lives");
    assert.equal(living.expiresAtUtc - living.enqueuedTimeUtc, 600_000);

    await until(async () => (await everythingIn(vanishing)).length === 0, "the message to vanish");
    await assertEmpty(bus.deadLetters("vanishing"));

    // The entity's own is the ceiling.
    await bus.sender("vanishing").sendMessages({ body: "long", timeToLive: 7_200_000 });
    const [long] = await consume(vanishing);
    assert.equal(long.timeToLive, 3_600_000);
    assert.equal(long.expiresAtUtc - long.enqueuedTimeUtc, 3_600_000);
  },
};
