// The clients of `@azure/service-bus` on one emulator, and what many steps do with them.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as delay } from "node:timers/promises";

import { ServiceBusAdministrationClient, ServiceBusClient } from "@azure/service-bus";

import { Emulator } from "./emulator.mjs";

/** The class of the SDK's sequence numbers; what `import` gets is another class of the same package. */
export const Long = createRequire(import.meta.url)("long");

/** Enough for a loaded machine; whoever waits ends with the event, not with this time. */
export const PATIENCE_MS = 30_000;

/** One emulator with nothing in it; what was opened through it is closed with it. */
export class Bus {
  #clients = [];

  static async open() {
    return new Bus(await Emulator.start());
  }

  constructor(emulator) {
    this.emulator = emulator;
    this.sb = this.client();
  }

  /** A connection of its own; without retries, so that none hides a fault. */
  client(retryOptions = {}, connectionString = this.emulator.connectionString) {
    const client = new ServiceBusClient(connectionString, {
      retryOptions: { maxRetries: 0, retryDelayInMs: 100, timeoutInMs: PATIENCE_MS, ...retryOptions },
    });
    this.#clients.push(client);
    return client;
  }

  sender(entity, client = this.sb) {
    return client.createSender(entity);
  }

  /** Of a queue, or of a subscription, which is written topic/name. */
  receiver(entity, options = {}, client = this.sb) {
    return client.createReceiver(...entity.split("/"), options);
  }

  deadLetters(entity, options = {}) {
    return this.receiver(entity, { subQueueType: "deadLetter", ...options });
  }

  /** The administration client has `https://` built in, whatever the connection string says. */
  administration(connectionString = this.emulator.connectionString) {
    const client = new ServiceBusAdministrationClient(connectionString, { retryOptions: { maxRetries: 0 } });
    client.pipeline.addPolicy({
      name: "plainHttp",
      sendRequest(request, next) {
        request.url = request.url.replace(/^https:/, "http:");
        request.allowInsecureConnection = true;
        return next(request);
      },
    });
    return client;
  }

  async close() {
    await this.#closeClients();
    assert.equal(await this.emulator.stop(), 0, "the emulator's exit code");
    assert.equal(this.emulator.complaints, "", "what the emulator said on stderr");
  }

  /** After a failure: as far as the emulator lets it. */
  async abandon() {
    await Promise.race([this.#closeClients().catch(() => {}), delay(5_000, undefined, { ref: false })]);
    this.emulator.abandon();
  }

  async #closeClients() {
    await Promise.all(this.#clients.map((client) => client.close()));
  }
}

/** That many messages, however the client cuts them into batches. */
export async function take(receiver, count) {
  const messages = [];
  while (messages.length < count) {
    const batch = await receiver.receiveMessages(count - messages.length, { maxWaitTimeInMs: PATIENCE_MS });
    assert.notEqual(batch.length, 0, `waited ${PATIENCE_MS} ms for message ${messages.length + 1} of ${count}`);
    messages.push(...batch);
  }
  assert.equal(messages.length, count);
  return messages;
}

export async function takeOne(receiver) {
  const [message] = await take(receiver, 1);
  return message;
}

/** Receives that many messages and completes them. */
export async function consume(receiver, count = 1) {
  const messages = await take(receiver, count);
  await Promise.all(messages.map((message) => receiver.completeMessage(message)));
  return messages;
}

/** All that is there, without taking it: the active, locked, deferred and scheduled ones. */
export function everythingIn(receiver) {
  return receiver.peekMessages(250, { fromSequenceNumber: Long.ONE });
}

export async function assertEmpty(receiver) {
  assert.deepEqual(bodies(await everythingIn(receiver)), []);
}

export function bodies(messages) {
  return messages.map((message) => message.body);
}

/** Asks until the answer is truthy. */
export async function until(condition, what) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `waited ${PATIENCE_MS} ms for ${what}`);
    await delay(20);
  }
}

/** Between two times, give or take what rounding to milliseconds takes. */
export function assertBetween(date, from, to, what) {
  assert.ok(date instanceof Date, `${what} is no date: ${date}`);
  const [time, earliest, latest] = [date, from, to].map(Number);
  const [is, first, last] = [time, earliest, latest].map((at) => new Date(at).toISOString());
  assert.ok(earliest - 1 <= time && time <= latest + 1, `${what} is ${is}, not between ${first} and ${last}`);
}

/** What the SDK throws for a refusal of the service. */
export function serviceBusError(code, message = /./) {
  return (error) => {
    assert.equal(error.name, "ServiceBusError", error.stack);
    assert.equal(error.code, code, error.stack);
    assert.match(error.message, message);
    return true;
  };
}
