// What each outcome of a delivery does to its message, and `$management` where it is more than a settlement.

import assert from "node:assert/strict";
import { Peer, drain, manage, messages, outcome, send, settle, take, types } from "./peer.mjs";
import { data, peek, receiveDeferred, renewLock, sendAll, textsOf } from "./queue.mjs";

export async function settled_outcomes(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "plain", ["m"]);
  const receiver = await peer.receiver("plain");
  const counts = [];
  const next = async () => {
    const [taken] = await take(receiver);
    counts.push(taken.message.delivery_count);
    return taken;
  };
  // Given back as if it had never been delivered.
  assert.equal((await settle(receiver, await next(), outcome.released())).name, "released");
  assert.equal((await settle(receiver, await next(), outcome.modified({ delivery_failed: true }))).name, "modified");
  const abandoned = outcome.modified({
    delivery_failed: true,
    message_annotations: { attempt: types.wrap_int(2), why: "busy" },
  });
  assert.equal((await settle(receiver, await next(), abandoned)).name, "modified");
  const changed = await next();
  assert.deepEqual(changed.message.application_properties, { attempt: 2, why: "busy" });
  assert.deepEqual(counts, [0, 0, 1, 2]);
  // Settled by a client that does not wait for an answer.
  const first = await peer.receiver("plain", { rcv_settle_mode: 0 });
  changed.delivery.update(false, outcome.released());
  const [again] = await take(first);
  assert.equal(again.message.delivery_count, 2);
  again.delivery.accept();
  assert.deepEqual(await peek(peer, "plain"), []);
  await peer.close();
}

export async function deferred_by_outcome(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "deferred", ["later"]);
  const receiver = await peer.receiver("deferred");
  const [later] = await take(receiver);
  const deferred = outcome.modified({
    undeliverable_here: true,
    message_annotations: { why: "closed" },
  });
  assert.equal((await settle(receiver, later, deferred)).name, "modified");
  assert.deepEqual(await drain(receiver, 1), []);
  const answer = await receiveDeferred(peer, "deferred", 1);
  assert.equal(answer.status, 200);
  const [entry] = answer.body.messages;
  const message = messages.decode(entry.message);
  assert.equal(message.body.content.toString(), "later");
  assert.deepEqual(message.application_properties, { why: "closed" });
  assert.equal(entry["lock-token"].length, 16);
  await peer.close();
}

export async function dead_lettered_by_outcome(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "plain", ["with strings", "with symbols", "with a condition", "bare"]);
  const receiver = await peer.receiver("plain");
  const dead = await take(receiver, 4);
  const info = { DeadLetterReason: "NotFood", DeadLetterErrorDescription: "a book", extra: 7 };
  const condition = "com.microsoft:dead-letter";
  const rejections = [
    { condition, info: types.wrap_map(info) },
    { condition, info: types.wrap_symbolic_map(info) },
    { condition: "amqp:decode-error", description: "not JSON" },
    undefined,
  ];
  for (const [index, error] of rejections.entries()) {
    // An error in the answer would mean that the settlement was refused.
    assert.deepEqual(await settle(receiver, dead[index], outcome.rejected(error)), {
      name: "rejected",
      condition: undefined,
      description: undefined,
    });
  }
  const letters = await take(await peer.receiver("plain/$DeadLetterQueue"), 4);
  assert.deepEqual(textsOf(letters), ["with strings", "with symbols", "with a condition", "bare"]);
  const [strings, symbols] = letters.map(({ message }) => message.application_properties);
  assert.deepEqual(strings, info);
  assert.deepEqual(symbols, info);
  await peer.close();
}

export async function management_of_what_is_unknown(port) {
  const peer = await Peer.connect(port);
  const answer = await manage(peer, "plain", "com.microsoft:brew-coffee", types.wrap_map({}));
  assert.ok([400, 404, 501].includes(answer.status), `${answer.status}`);
  const lost = await renewLock(peer, "plain", Buffer.alloc(16, 7));
  assert.deepEqual([lost.status, lost.condition], [410, "com.microsoft:message-lock-lost"]);
  const missing = await receiveDeferred(peer, "plain", 99);
  assert.deepEqual([missing.status, missing.condition], [404, "com.microsoft:message-not-found"]);
  await peer.close();
}

export async function rules(port) {
  const peer = await Peer.connect(port);
  const entity = "ruled/Subscriptions/rules";
  const names = async () => {
    const answer = await manage(
      peer,
      entity,
      "com.microsoft:enumerate-rules",
      types.wrap_map({ top: types.wrap_int(100), skip: types.wrap_int(0) }),
    );
    if (answer.status === 204) return [];
    assert.equal(answer.status, 200);
    return answer.body.rules.map((rule) => rule["rule-description"].value[2].value);
  };
  assert.deepEqual(await names(), ["$Default"]);
  const added = await manage(
    peer,
    entity,
    "com.microsoft:add-rule",
    types.wrap_map({
      "rule-name": "reds",
      "rule-description": types.wrap_map({
        "sql-filter": types.wrap_map({ expression: "colour = 'red'" }),
        "sql-rule-action": types.wrap_map({ expression: "SET seen = 1" }),
      }),
    }),
  );
  assert.equal(added.status, 200);
  assert.deepEqual((await names()).sort(), ["$Default", "reds"]);
  const removed = await manage(
    peer,
    entity,
    "com.microsoft:remove-rule",
    types.wrap_map({ "rule-name": "$Default" }),
  );
  assert.equal(removed.status, 200);
  assert.deepEqual(await names(), ["reds"]);
  const topic = await peer.sender("ruled");
  for (const colour of ["red", "blue"]) {
    const message = data(colour, { application_properties: { colour } });
    assert.equal((await send(peer, topic, message)).name, "accepted");
  }
  const taken = await drain(await peer.receiver(entity), 10);
  assert.deepEqual(textsOf(taken), ["red"]);
  assert.deepEqual(taken[0].message.application_properties, { colour: "red", seen: 1 });
  await peer.close();
}

export async function what_came_before_the_close_is_done(port) {
  // A client that waits for no answer says all it has to say and leaves.
  const texts = Array.from({ length: 50 }, (_, index) => `m${index}`);
  const sending = await Peer.connect(port);
  const sender = await sending.sender("plain", { snd_settle_mode: 1 });
  for (const text of texts) sender.send(data(text));
  await sending.close();
  const settling = await Peer.connect(port);
  assert.deepEqual(await peek(settling, "plain"), texts);
  const receiver = await settling.receiver("plain", { rcv_settle_mode: 0 });
  const taken = await take(receiver, texts.length);
  for (const [index, { delivery }] of taken.entries()) {
    if (index % 2) delivery.release();
    else delivery.accept();
  }
  await settling.close();
  const after = await Peer.connect(port);
  const left = await take(await after.receiver("plain"), texts.length / 2);
  assert.deepEqual(textsOf(left), texts.filter((_, index) => index % 2));
  assert.deepEqual(new Set(left.map(({ message }) => message.delivery_count)), new Set([0]));
  await after.close();
}
