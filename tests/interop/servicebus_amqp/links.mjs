// Who may open a link, how much comes over it, and what its end means.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { Peer, drain, event, failureOf, putToken, rhea, send, sharedAccessSignature, take } from "./peer.mjs";
import { answerOrFailure, complete, data, lockToken, peek, renewLock, sendAll, textOf, textsOf } from "./queue.mjs";

export async function sasl_plain(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "plain", ["hello"]);
  await peer.close();
}

export async function sasl_plain_with_a_wrong_key(port) {
  for (const credentials of [
    { username: "RootManageSharedAccessKey", password: "WRONG_KEY_VALUE" },
    { username: "SomebodyElse", password: "SAS_KEY_VALUE" },
  ]) {
    const refused = await failureOf(Peer.connect(port, credentials));
    assert.equal(refused.condition, "amqp:unauthorized-access");
  }
}

export async function sasl_with_a_token(port) {
  const external = rhea.sasl.client_mechanisms();
  external.enable_external();
  const cbs = { MSSBCBS: () => ({ start: (done) => done(undefined, "") }) };
  for (const options of [{ username: "anonymous" }, { sasl_mechanisms: external }, { sasl_mechanisms: cbs }]) {
    const peer = await Peer.connect(port, options);
    const audience = `amqp://localhost:${port}/plain`;
    // Not before there is a token.
    const refused = await failureOf(peer.sender("plain"));
    assert.equal(refused.condition, "amqp:unauthorized-access");
    assert.equal(await putToken(peer, audience, sharedAccessSignature(audience)), 202);
    const sender = await peer.sender("plain");
    assert.equal((await send(peer, sender, data("hello"))).name, "accepted");
    // For one entity is not for another one.
    assert.equal((await failureOf(peer.receiver("txn-a"))).condition, "amqp:unauthorized-access");
    await peer.close();
  }
}

export async function tokens_that_are_refused(port) {
  const peer = await Peer.connect(port, { username: "anonymous" });
  const audience = `amqp://localhost:${port}/plain`;
  const expiry = Math.floor(Date.now() / 1000) - 60;
  for (const token of [
    sharedAccessSignature(audience, { key: "WRONG_KEY_VALUE" }),
    sharedAccessSignature(audience, { keyName: "SomebodyElse" }),
    sharedAccessSignature(audience, { expiry }),
    "SharedAccessSignature nonsense",
  ]) {
    assert.equal(await putToken(peer, audience, token), 401, token);
  }
  // One for something else opens that, whatever it is said to be for.
  assert.equal(await putToken(peer, audience, sharedAccessSignature(`amqp://localhost:${port}/txn-a`)), 202);
  await peer.sender("txn-a");
  assert.equal((await failureOf(peer.sender("plain"))).condition, "amqp:unauthorized-access");
  await peer.close();
}

export async function credit_and_drain(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "plain", ["1", "2", "3", "4", "5"]);
  const receiver = await peer.receiver("plain");
  // Not one more than the credit.
  assert.deepEqual(textsOf(await take(receiver, 2)), ["1", "2"]);
  assert.equal(receiver.credit, 0);
  assert.deepEqual(textsOf(await drain(receiver, 10)), ["3", "4", "5"]);
  assert.equal(receiver.credit, 0);
  // With nothing there it is over at once.
  assert.deepEqual(await drain(receiver, 10), []);
  // What comes later finds no credit: a question that is answered after it shows that.
  const unasked = [];
  receiver.on("message", (context) => unasked.push(context));
  await sendAll(peer, "plain", ["6"]);
  assert.equal((await peek(peer, "plain")).length, 6);
  assert.equal(unasked.length, 0);
  receiver.removeAllListeners("message");
  assert.deepEqual(textsOf(await drain(receiver, 1)), ["6"]);
  await peer.close();
}

export async function presettled(port) {
  const peer = await Peer.connect(port);
  // Both ways: nobody answers anybody.
  const sender = await peer.sender("plain", { snd_settle_mode: 1 });
  sender.send(data("one"));
  sender.send(data("two"));
  const receiver = await peer.receiver("plain", { snd_settle_mode: 1, rcv_settle_mode: 0 });
  const [one] = await take(receiver);
  assert.equal(textOf(one), "one");
  assert.equal(one.delivery.remote_settled, true);
  const [two] = await take(receiver);
  assert.equal(textOf(two), "two");
  assert.deepEqual(await peek(peer, "plain"), []);
  await peer.close();
}

export async function a_detached_link_settles_nothing(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "short-lock", ["mine"]);
  const receiver = await peer.receiver("short-lock");
  const [mine] = await take(receiver);
  const token = lockToken(mine);
  const closed = event(receiver, "receiver_close");
  receiver.close();
  await closed;
  // Neither given back nor lost: nobody gets it, and its lock can be renewed and it can be settled.
  const other = await peer.receiver("short-lock");
  assert.deepEqual(await drain(other, 1), []);
  const before = Date.now();
  const renewed = await renewLock(peer, "short-lock", token);
  assert.equal(renewed.status, 200);
  const [until] = renewed.body.expirations;
  assert.ok(until >= before + 4_900 && until <= Date.now() + 5_000, `${until}`);
  assert.equal((await complete(peer, "short-lock", mine)).status, 200);
  assert.deepEqual(await peek(peer, "short-lock"), []);
  const twice = await complete(peer, "short-lock", mine);
  assert.deepEqual([twice.status, twice.condition], [410, "com.microsoft:message-lock-lost"]);
  await peer.close();
}

export async function a_lost_connection_settles_nothing(port) {
  const peer = await Peer.connect(port);
  await sendAll(peer, "short-lock", ["mine"]);
  const [mine] = await take(await peer.receiver("short-lock"));
  const lost = Date.now();
  peer.connection.socket.destroy(new Error("lost"));
  const other = await Peer.connect(port);
  const receiver = await other.receiver("short-lock");
  assert.deepEqual(await drain(receiver, 1), []);
  const [again] = await take(receiver);
  assert.ok(Date.now() - lost > 3_000);
  assert.equal(again.message.delivery_count, 1);
  assert.notDeepEqual(again.delivery.tag, mine.delivery.tag);
  await other.close();
}

export async function message_too_large(port) {
  const peer = await Peer.connect(port);
  const sender = await peer.sender("plain");
  assert.equal(sender.max_message_size, 256 * 1024);
  const refused = await answerOrFailure(send(peer, sender, data("x".repeat(300 * 1024))));
  assert.equal(refused.condition, "amqp:link:message-size-exceeded");
  // The connection goes on.
  await sendAll(peer, "plain", ["small"]);
  assert.deepEqual(await peek(peer, "plain"), ["small"]);
  await peer.close();
}

export async function unknown_address(port) {
  const peer = await Peer.connect(port);
  for (const address of ["nowhere", "fan/Subscriptions/nobody", "plain/$Nothing", `amqp://localhost:${port}/nowhere`]) {
    assert.equal((await failureOf(peer.receiver(address))).condition, "amqp:not-found", address);
    assert.equal((await failureOf(peer.sender(address))).condition, "amqp:not-found", address);
  }
  // What is there, however it is written.
  for (const address of ["PLAIN", `amqps://localhost:${port}/plain`, `sb://localhost/plain`, "/plain"]) {
    await peer.receiver(address);
  }
  for (const address of ["fan/subscriptions/S1", "fan/Subscriptions/s1/$deadletterqueue"]) {
    await peer.receiver(address);
  }
  await peer.close();
}

export async function heartbeats(port) {
  // rhea gives up on a peer that is silent for twice this time, and sends its own as the broker asks.
  const peer = await Peer.connect(port, {
    username: "RootManageSharedAccessKey",
    password: "SAS_KEY_VALUE",
    idle_time_out: 1_000,
  });
  const lost = event(peer.connection, "disconnected").then(
    () => "lost",
    () => "kept",
  );
  assert.equal(await Promise.race([lost, pause(3_500, "kept")]), "kept");
  await sendAll(peer, "plain", ["still here"]);
  await peer.close();
}
