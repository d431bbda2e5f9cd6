// Sessions: accepted by name or as they come, their state and their lock.

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import { assertBetween, assertEmpty, bodies, consume, everythingIn, serviceBusError, take, takeOne } from "./bus.mjs";

function inSession(sessionId, ...texts) {
  return texts.map((body) => ({ body, sessionId }));
}

export const sessions = {
  async "session-named"(bus) {
    const sender = bus.sender("sessions");
    await sender.sendMessages([...inSession("a", "a1"), ...inSession("b", "b1"), ...inSession("a", "a2")]);
    const before = Date.now();
    const a = await bus.sb.acceptSession("sessions", "a");
    assert.equal(a.sessionId, "a");
    assertBetween(a.sessionLockedUntilUtc, before + 60_000, Date.now() + 60_000, "sessionLockedUntilUtc");

    // Nobody else gets it, and nobody gets messages without one.
    const other = bus.client();
    await assert.rejects(other.acceptSession("sessions", "a"), serviceBusError("SessionCannotBeLocked"));
    await assert.rejects(
      bus.receiver("sessions").receiveMessages(1, { maxWaitTimeInMs: 1_000 }),
      serviceBusError("GeneralError", /InvalidOperationError.*requires sessions/is),
    );
    await assert.rejects(
      bus.sb.acceptNextSession("plain"),
      serviceBusError("GeneralError", /InvalidOperationError.*session/is),
    );
    // Of a session with a name, the SDK says this whatever the service has said.
    await assert.rejects(bus.sb.acceptSession("plain", "a"), serviceBusError("SessionCannotBeLocked"));
    await assert.rejects(sender.sendMessages({ body: "in none" }), serviceBusError("GeneralError", /session/i));

    const [a1, a2] = await take(a, 2);
    assert.deepEqual(
      [a1, a2].map((message) => [message.body, message.sessionId, message.deliveryCount]),
      [
        ["a1", "a", 0],
        ["a2", "a", 0],
      ],
    );
    assertBetween(a1.lockedUntilUtc, a.sessionLockedUntilUtc, a.sessionLockedUntilUtc, "lockedUntilUtc");
    assert.deepEqual(bodies(await everythingIn(a)), ["a1", "a2"]);
    assert.deepEqual(bodies(await everythingIn(bus.receiver("sessions"))), ["a1", "b1", "a2"]);
    await a.completeMessage(a1);
    await a.abandonMessage(a2, { attempt: 2 });
    const again = await takeOne(a);
    assert.deepEqual([again.body, again.deliveryCount, again.applicationProperties], ["a2", 1, { attempt: 2 }]);
    await a.deferMessage(again);
    const [deferred] = await a.receiveDeferredMessages(again.sequenceNumber);
    assert.deepEqual([deferred.body, deferred.sessionId], ["a2", "a"]);
    await a.deadLetterMessage(deferred, { deadLetterReason: "r", deadLetterErrorDescription: "d" });
    const [dead] = await consume(bus.deadLetters("sessions"));
    assert.deepEqual([dead.body, dead.sessionId, dead.deadLetterReason], ["a2", "a", "r"]);

    // Closed, it is anybody's: also what had been received and not settled, at once.
    await sender.sendMessages(inSession("a", "a3"));
    assert.equal((await takeOne(a)).body, "a3");
    await a.close();
    const heir = await other.acceptSession("sessions", "a");
    const a3 = await takeOne(heir);
    assert.equal(a3.body, "a3");
    await heir.completeMessage(a3);
    const subscribed = await bus.sb.acceptSession("sessions-topic", "sessions", "t");
    await bus.sender("sessions-topic").sendMessages([...inSession("u", "u1"), ...inSession("t", "t1")]);
    assert.deepEqual(bodies(await consume(subscribed)), ["t1"]);
  },

  async "session-next"(bus) {
    const sender = bus.sender("sessions");
    await sender.sendMessages([...inSession("b", "b1"), ...inSession("a", "a1"), ...inSession("b", "b2")]);
    const [first, second] = [
      await bus.sb.acceptNextSession("sessions"),
      await bus.client().acceptNextSession("sessions"),
    ];
    assert.deepEqual([first.sessionId, second.sessionId], ["b", "a"]);
    assert.deepEqual(bodies(await consume(first, 2)), ["b1", "b2"]);
    assert.deepEqual(bodies(await consume(second)), ["a1"]);

    const impatient = bus.client({ timeoutInMs: 1_000 });
    const start = Date.now();
    await assert.rejects(impatient.acceptNextSession("sessions"), serviceBusError("ServiceTimeout"));
    assertBetween(new Date(), start + 900, start + 10_000, "the end of waiting");

    // Who waits gets the session that comes.
    const waiting = bus.client().acceptNextSession("sessions");
    await delay(300);
    await sender.sendMessages([...inSession("b", "b3"), ...inSession("c", "c1")]);
    const third = await waiting;
    assert.equal(third.sessionId, "c");
    assert.deepEqual(bodies(await consume(third)), ["c1"]);
    assert.deepEqual(bodies(await consume(first)), ["b3"]);
  },

  async "session-state"(bus) {
    await bus.sender("sessions").sendMessages(inSession("a", "a1"));
    const a = await bus.sb.acceptSession("sessions", "a");
    assert.equal(await a.getSessionState(), null);
    const state = { step: 3, names: ["Zürich"], done: false };
    await a.setSessionState(state);
    assert.deepEqual(await a.getSessionState(), state);
    // It outlives the receiver and the messages.
    await consume(a);
    await a.close();
    const again = await bus.client().acceptSession("sessions", "a");
    assert.deepEqual(await again.getSessionState(), state);
    const bytes = Buffer.from([0, 255, 1, 254]);
    await again.setSessionState(bytes);
    assert.deepEqual(await again.getSessionState(), bytes);
    // The SDK sends JSON's null: nothing of it clears a state.
    await again.setSessionState(null);
    assert.equal(await again.getSessionState(), null);
    const b = await bus.sb.acceptSession("sessions", "b");
    assert.equal(await b.getSessionState(), null);
  },

  async "session-lock"(bus) {
    const byHand = { maxAutoLockRenewalDurationInMs: 0 };
    const sender = bus.sender("short-sessions");
    await sender.sendMessages([
      ...inSession("kept", "k1"),
      ...inSession("lost", "l1", "l2"),
      ...inSession("itself", "i1"),
    ]);
    const kept = await bus.sb.acceptSession("short-sessions", "kept", byHand);
    const lost = await bus.sb.acceptSession("short-sessions", "lost", byHand);
    const itself = await bus.sb.acceptSession("short-sessions", "itself");
    const [k1, l1, i1] = [await takeOne(kept), await takeOne(lost), await takeOne(itself)];
    const [firstEnd, end] = [kept.sessionLockedUntilUtc, lost.sessionLockedUntilUtc];

    await delay(3_000);
    const before = Date.now();
    const renewed = await kept.renewSessionLock();
    assertBetween(renewed, before + 5_000, Date.now() + 5_000, "the renewed lock");
    assert.ok(renewed - firstEnd > 2_000);
    assert.deepEqual(kept.sessionLockedUntilUtc, renewed);

    // Another one gets the session as soon as its lock has ended.
    const other = bus.client();
    const heir = await other.acceptNextSession("short-sessions", byHand);
    assert.equal(heir.sessionId, "lost");
    assert.ok(new Date() >= end);
    const again = await take(heir, 2);
    assert.deepEqual(
      again.map((message) => [message.body, message.deliveryCount]),
      [
        ["l1", 1],
        ["l2", 0],
      ],
    );
    await assert.rejects(lost.completeMessage(l1), (error) => /lock|closed/i.test(error.message));
    await assert.rejects(lost.receiveMessages(1, { maxWaitTimeInMs: 1_000 }));
    for (const message of again) await heir.completeMessage(message);

    assert.ok(new Date() > firstEnd);
    await kept.completeMessage(k1);
    await itself.completeMessage(i1);
    assert.ok(itself.sessionLockedUntilUtc > firstEnd);
    await assertEmpty(bus.receiver("short-sessions"));
  },
};
