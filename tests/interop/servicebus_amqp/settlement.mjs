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
