// Transactions through the coordinator: several sends and settlements, all of them or none.

import assert from "node:assert/strict";
import { Peer, Transaction, outcome, settle, take } from "./peer.mjs";
import { answerOrFailure, complete, data, peek, sendAll, textsOf } from "./queue.mjs";

export async function transactions_commit(port) {
  const peer = await Peer.connect(port);
  const sender = await sendAll(peer, "txn-a", ["one", "two"]);
  const receiver = await peer.receiver("txn-a");
  const [one, two] = await take(receiver, 2);
  const transaction = await Transaction.declare(peer);
  assert.ok(transaction.id.length > 0 && transaction.id.length <= 32);
  const sent = await transaction.send(sender, data("three"));
  assert.deepEqual([sent.name, sent.inner], ["transactional", 0x24]);
  const settled = await transaction.settle(receiver, one, outcome.accepted());
  assert.deepEqual([settled.name, settled.inner], ["transactional", 0x24]);
  // Nobody sees it before it is committed.
  assert.deepEqual(await peek(peer, "txn-a"), ["one", "two"]);
  assert.equal((await transaction.commit()).name, "accepted");
  assert.deepEqual(await peek(peer, "txn-a"), ["two", "three"]);
  assert.equal((await settle(receiver, two, outcome.accepted())).name, "accepted");
  assert.deepEqual(textsOf(await take(receiver)), ["three"]);
  await peer.close();
}

export async function transactions_roll_back(port) {
  const peer = await Peer.connect(port);
  const sender = await sendAll(peer, "txn-a", ["one"]);
  const receiver = await peer.receiver("txn-a");
  const [one] = await take(receiver);
  const transaction = await Transaction.declare(peer);
  await transaction.send(sender, data("two"));
  await transaction.settle(receiver, one, outcome.accepted());
  assert.equal((await transaction.rollBack()).name, "accepted");
  assert.deepEqual(await peek(peer, "txn-a"), ["one"]);
  // Still locked by this receiver, which may settle it after all.
  assert.equal((await complete(peer, "txn-a", one)).status, 200);
  assert.deepEqual(await peek(peer, "txn-a"), []);
  await peer.close();
}

export async function transactions_across_entities(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "txn-a", ["order"]);
  const sender = await peer.sender("txn-b");
  const topic = await peer.sender("fan");
  const receiver = await peer.receiver("txn-a");
  const [order] = await take(receiver);
  const transaction = await Transaction.declare(peer);
  await transaction.send(sender, data("invoice 1"));
  await transaction.settle(receiver, order, outcome.accepted());
  await transaction.send(topic, data("news"));
  await transaction.send(sender, data("invoice 2"));
  const before = await Promise.all(["txn-a", "txn-b", "fan/Subscriptions/s1"].map((it) => peek(peer, it)));
  assert.deepEqual(before, [["order"], [], []]);
  assert.equal((await transaction.commit()).name, "accepted");
  const after = await Promise.all(["txn-a", "txn-b", "fan/Subscriptions/s1"].map((it) => peek(peer, it)));
  assert.deepEqual(after, [[], ["invoice 1", "invoice 2"], ["news"]]);
  await peer.close();
}

export async function transactions_lock_lost(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "txn-short-lock", ["slow"]);
  const sender = await peer.sender("txn-b");
  const receiver = await peer.receiver("txn-short-lock");
  const [slow] = await take(receiver);
  const transaction = await Transaction.declare(peer);
  await transaction.send(sender, data("too soon"));
  // Another one gets it when the lock has run out.
  const other = await peer.receiver("txn-short-lock");
  const [again] = await take(other);
  assert.equal(again.message.delivery_count, 1);
  const settled = await transaction.settle(receiver, slow, outcome.accepted());
  if (settled.name === "rejected") {
    assert.equal(settled.condition, "com.microsoft:message-lock-lost");
    await transaction.rollBack();
  } else {
    const discharged = await transaction.commit();
    assert.deepEqual([discharged.name, discharged.condition], ["rejected", "com.microsoft:message-lock-lost"]);
  }
  // All or none.
  assert.deepEqual(await peek(peer, "txn-b"), []);
  assert.equal((await settle(other, again, outcome.accepted())).name, "accepted");
  await peer.close();
}

export async function transactions_unknown(port) {
  const peer = await Peer.connect(port);
  const sender = await peer.sender("txn-a");
  const transaction = await Transaction.declare(peer);
  assert.equal((await transaction.commit()).name, "accepted");
  // It is over, so that nothing can be done in it any more.
  const late = await answerOrFailure(transaction.send(sender, data("late")));
  assert.equal(late.condition, "amqp:transaction:unknown-id");
  const twice = await answerOrFailure(transaction.commit());
  assert.equal(twice.condition, "amqp:transaction:unknown-id");
  const forged = await Transaction.declare(peer);
  forged.id = Buffer.from("forged");
  assert.equal((await answerOrFailure(forged.commit())).condition, "amqp:transaction:unknown-id");
  assert.deepEqual(await peek(peer, "txn-a"), []);
  await peer.close();
}

export async function transactions_end_with_their_connection(port) {
  const peer = await Peer.connect(port);
  const sender = await sendAll(peer, "txn-a", ["one"]);
  const receiver = await peer.receiver("txn-a");
  const [one] = await take(receiver);
  const transaction = await Transaction.declare(peer);
  await transaction.send(sender, data("two"));
  await transaction.settle(receiver, one, outcome.accepted());
  await peer.close();
  const other = await Peer.connect(port);
  assert.deepEqual(await peek(other, "txn-a"), ["one"]);
  await other.close();
}
