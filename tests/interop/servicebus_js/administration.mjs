// The administration client: entities and rules, looked at, created, changed and deleted.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { assertBetween, assertEmpty, bodies, consume, serviceBusError, takeOne } from "./bus.mjs";

const CONFIG = JSON.parse(readFileSync(new URL("../servicebus.json", import.meta.url), "utf8"));
const [{ Queues, Topics }] = CONFIG.UserConfig.Namespaces;
const NEVER = "P10675199DT2H48M5.4775807S";
const notFound = { code: "MessageEntityNotFoundError", statusCode: 404 };
const exists = { code: "MessageEntityAlreadyExistsError", statusCode: 409 };
const refused = { code: "ServiceError", statusCode: 400 };

function names(entities) {
  return entities.map((entity) => entity.Name).sort();
}

async function all(iterator, name = "name") {
  const found = [];
  for await (const entity of iterator) found.push(entity[name]);
  return found.sort();
}

/** What the object has of the expected names. */
function assertHas(object, expected) {
  const found = Object.fromEntries(Object.keys(expected).map((name) => [name, object[name]]));
  assert.deepEqual(found, expected);
}

async function queues(bus, administration) {
  assert.deepEqual(await all(administration.listQueues()), names(Queues));
  const paged = [];
  for await (const page of administration.listQueues().byPage({ maxPageSize: 10 }))
    paged.push(page.map(({ name }) => name));
  assert.deepEqual(
    paged.map((page) => page.length),
    [10, 10, Queues.length - 20],
  );
  assert.deepEqual(paged.flat().sort(), names(Queues));
  assertHas(await administration.getQueue("dedup"), {
    name: "dedup",
    lockDuration: "PT1M",
    maxDeliveryCount: 10,
    defaultMessageTimeToLive: "PT1H",
    requiresDuplicateDetection: true,
    duplicateDetectionHistoryTimeWindow: "PT20S",
    requiresSession: false,
    deadLetteringOnMessageExpiration: false,
    enablePartitioning: false,
    enableBatchedOperations: true,
    enableExpress: false,
    maxSizeInMegabytes: 1024,
    autoDeleteOnIdle: NEVER,
    status: "Active",
    availabilityStatus: "Available",
    forwardTo: undefined,
    forwardDeadLetteredMessagesTo: undefined,
  });
  const { forwardTo } = await administration.getQueue("forwards-from");
  assert.match(forwardTo, /(^|\/)forwards-to$/);

  const options = {
    lockDuration: "PT30S",
    maxDeliveryCount: 3,
    defaultMessageTimeToLive: "P1D",
    requiresDuplicateDetection: true,
    duplicateDetectionHistoryTimeWindow: "PT5M",
    requiresSession: true,
    deadLetteringOnMessageExpiration: true,
    userMetadata: "mine & <yours>: «Zürich»",
  };
  const created = await administration.createQueue("created", {
    ...options,
    forwardDeadLetteredMessagesTo: "dead-letters",
  });
  assertHas(created, { name: "created", ...options });
  assert.match(created.forwardDeadLetteredMessagesTo, /(^|\/)dead-letters$/);
  assert.deepEqual({ ...(await administration.getQueue("created")) }, { ...created });
  assertHas(await administration.createQueue("bare"), {
    lockDuration: "PT1M",
    maxDeliveryCount: 10,
    defaultMessageTimeToLive: NEVER,
    requiresDuplicateDetection: false,
    requiresSession: false,
    deadLetteringOnMessageExpiration: false,
    status: "Active",
  });
  await assert.rejects(administration.createQueue("bare"), exists);
  await assert.rejects(administration.createQueue("fan"), exists);
  await assert.rejects(administration.createQueue("long", { lockDuration: "PT10M" }), refused);
  await assert.rejects(administration.getQueue("missing"), notFound);
  await assert.rejects(administration.getQueueRuntimeProperties("missing"), notFound);
  await assert.rejects(administration.deleteQueue("missing"), notFound);
  assert.deepEqual(
    [await administration.queueExists("bare"), await administration.queueExists("missing")],
    [true, false],
  );

  // It works as it says, at once.
  await bus.sender("created").sendMessages([1, 2].map((body) => ({ body, sessionId: "s", messageId: "same" })));
  const session = await bus.sb.acceptSession("created", "s");
  assertBetween(session.sessionLockedUntilUtc, Date.now() + 20_000, Date.now() + 30_000, "sessionLockedUntilUtc");
  assert.deepEqual(bodies(await consume(session)), [1]);

  // What the update does not say stays.
  const bare = await administration.getQueue("bare");
  Object.assign(bare, { lockDuration: "PT45S", maxDeliveryCount: 1 });
  assert.deepEqual({ ...(await administration.updateQueue(bare)) }, { ...bare });
  assert.deepEqual({ ...(await administration.getQueue("bare")) }, { ...bare });
  const receiver = bus.receiver("bare");
  await bus.sender("bare").sendMessages({ body: "once" });
  await receiver.abandonMessage(await takeOne(receiver));
  assert.deepEqual(bodies(await consume(bus.deadLetters("bare"))), ["once"]);
  await assert.rejects(administration.updateQueue({ ...bare, requiresSession: true }), refused);
  await administration.updateQueue({ ...bare, status: "SendDisabled" });
  await assert.rejects(
    bus.sender("bare", bus.client()).sendMessages({ body: "x" }),
    serviceBusError("MessagingEntityDisabled"),
  );
  await administration.updateQueue({ ...bare, status: "Active" });
  await bus.sender("bare", bus.client()).sendMessages({ body: "x" });
  await assert.rejects(administration.updateQueue({ ...bare, name: "missing" }), notFound);

  await administration.deleteQueue("bare");
  await assert.rejects(administration.getQueue("bare"), notFound);
  await assert.rejects(
    bus.sender("bare", bus.client()).sendMessages({ body: "x" }),
    serviceBusError("MessagingEntityNotFound"),
  );
  await administration.createQueue("bare");
  await assertEmpty(bus.receiver("bare", {}, bus.client()));
  assert.deepEqual(await all(administration.listQueues()), [...names(Queues), "bare", "created"].sort());
}

async function topics(bus, administration) {
  assert.deepEqual(await all(administration.listTopics()), names(Topics));
  assertHas(await administration.getTopic("fan"), {
    name: "fan",
    defaultMessageTimeToLive: "PT1H",
    requiresDuplicateDetection: false,
    maxSizeInMegabytes: 1024,
    enablePartitioning: false,
    status: "Active",
    availabilityStatus: "Available",
  });
  const topic = await administration.createTopic("created-topic", {
    requiresDuplicateDetection: true,
    defaultMessageTimeToLive: "PT2H",
    userMetadata: "m",
  });
  assertHas(topic, {
    name: "created-topic",
    requiresDuplicateDetection: true,
    defaultMessageTimeToLive: "PT2H",
    userMetadata: "m",
  });
  assert.deepEqual({ ...(await administration.getTopic("created-topic")) }, { ...topic });
  await assert.rejects(administration.createTopic("created-topic"), exists);
  const changed = await administration.updateTopic({ ...topic, defaultMessageTimeToLive: "PT3H" });
  assert.equal(changed.defaultMessageTimeToLive, "PT3H");
  assert.equal((await administration.getTopic("created-topic")).defaultMessageTimeToLive, "PT3H");
  await assert.rejects(administration.getTopic("missing"), notFound);

  const filtered = Topics.find(({ Name }) => Name === "filtered");
  assert.deepEqual(
    await all(administration.listSubscriptions("filtered"), "subscriptionName"),
    names(filtered.Subscriptions),
  );
  assertHas(await administration.getSubscription("fan", "s1"), {
    topicName: "fan",
    subscriptionName: "s1",
    lockDuration: "PT1M",
    maxDeliveryCount: 10,
    requiresSession: false,
    defaultMessageTimeToLive: "PT1H",
    deadLetteringOnMessageExpiration: false,
    status: "Active",
  });
  const subscription = await administration.createSubscription("created-topic", "sub", {
    lockDuration: "PT15S",
    maxDeliveryCount: 2,
    deadLetteringOnMessageExpiration: true,
    defaultRuleOptions: {
      name: "big",
      filter: { sqlExpression: "size > 5" },
      action: { sqlExpression: "SET seen = true" },
    },
  });
  assertHas(subscription, {
    topicName: "created-topic",
    subscriptionName: "sub",
    lockDuration: "PT15S",
    maxDeliveryCount: 2,
    deadLetteringOnMessageExpiration: true,
  });
  assert.deepEqual({ ...(await administration.getSubscription("created-topic", "sub")) }, { ...subscription });
  assert.deepEqual(await all(administration.listRules("created-topic", "sub")), ["big"]);
  await administration.createSubscription("created-topic", "everything");
  assert.deepEqual(await all(administration.listRules("created-topic", "everything")), ["$Default"]);
  await assert.rejects(administration.createSubscription("created-topic", "sub"), exists);
  await assert.rejects(administration.createSubscription("missing", "sub"), notFound);
  await assert.rejects(administration.getSubscription("created-topic", "missing"), notFound);
  await administration.updateSubscription({ ...subscription, maxDeliveryCount: 4 });
  assert.equal((await administration.getSubscription("created-topic", "sub")).maxDeliveryCount, 4);

  await bus
    .sender("created-topic")
    .sendMessages([3, 7].map((size) => ({ body: size, applicationProperties: { size } })));
  const [large] = await consume(bus.receiver("created-topic/sub"));
  assert.deepEqual([large.body, large.applicationProperties], [7, { size: 7, seen: true }]);
  assert.deepEqual(bodies(await consume(bus.receiver("created-topic/everything"), 2)), [3, 7]);
  assert.equal((await administration.getTopicRuntimeProperties("created-topic")).subscriptionCount, 2);
  await administration.deleteSubscription("created-topic", "everything");
  assert.equal(await administration.subscriptionExists("created-topic", "everything"), false);
  assert.deepEqual(await all(administration.listSubscriptions("created-topic"), "subscriptionName"), ["sub"]);
  await administration.deleteTopic("created-topic");
  assert.equal(await administration.topicExists("created-topic"), false);
  await assert.rejects(administration.getSubscription("created-topic", "sub"), notFound);
  assert.deepEqual(await all(administration.listTopics()), names(Topics));
}

async function counts(bus, administration) {
  const before = Date.now();
  const receiver = bus.receiver("plain");
  await bus.sender("plain").sendMessages(["dead", "locked", "active", "active"].map((body) => ({ body })));
  await bus.sender("plain").scheduleMessages({ body: "scheduled" }, new Date(before + 3_600_000));
  await receiver.deadLetterMessage(await takeOne(receiver));
  await takeOne(receiver);
  const queue = await administration.getQueueRuntimeProperties("plain");
  const expected = {
    name: "plain",
    activeMessageCount: 3,
    deadLetterMessageCount: 1,
    scheduledMessageCount: 1,
    transferMessageCount: 0,
    transferDeadLetterMessageCount: 0,
    totalMessageCount: 5,
  };
  assertHas(queue, expected);
  assert.ok(queue.sizeInBytes > 0, `sizeInBytes is ${queue.sizeInBytes}`);
  for (const name of ["createdAt", "modifiedAt", "accessedAt"]) {
    assert.ok(queue[name] instanceof Date && !Number.isNaN(queue[name].getTime()), `${name} is ${queue[name]}`);
  }
  for await (const listed of administration.listQueuesRuntimeProperties()) {
    assertHas(
      listed,
      listed.name === "plain" ? expected : { activeMessageCount: 0, deadLetterMessageCount: 0, totalMessageCount: 0 },
    );
  }

  await bus.sender("fan").sendMessages([{ body: "a" }, { body: "b" }]);
  const subscription = bus.receiver("fan/s1");
  await subscription.deadLetterMessage(await takeOne(subscription));
  const runtime = (name) => administration.getSubscriptionRuntimeProperties("fan", name);
  assertHas(await runtime("s1"), {
    topicName: "fan",
    subscriptionName: "s1",
    activeMessageCount: 1,
    deadLetterMessageCount: 1,
    totalMessageCount: 2,
  });
  assertHas(await runtime("s2"), { activeMessageCount: 2, deadLetterMessageCount: 0, totalMessageCount: 2 });
  await bus.sender("fan").scheduleMessages({ body: "c" }, new Date(before + 3_600_000));
  assertHas(await administration.getTopicRuntimeProperties("fan"), {
    name: "fan",
    subscriptionCount: 2,
    scheduledMessageCount: 1,
  });
}

const NOTHING_SAID = {
  correlationId: undefined,
  subject: undefined,
  to: undefined,
  replyTo: undefined,
  replyToSessionId: undefined,
  sessionId: undefined,
  messageId: undefined,
  contentType: undefined,
  applicationProperties: undefined,
};
const NO_ACTION = { sqlExpression: undefined, sqlParameters: undefined };

function sql(sqlExpression, sqlParameters = undefined) {
  return { sqlExpression, sqlParameters };
}

export const administration = {
  /** At the port of the connection string, which is that of AMQP. */
  async "admin-entities"(bus) {
    const administration = bus.administration();
    const namespace = await administration.getNamespaceProperties();
    assertHas(namespace, { name: "sbemulatorns", messagingSku: "Standard" });
    assertBetween(namespace.createdAt, 0, Date.now(), "createdAt");
    await counts(bus, administration);
    await queues(bus, administration);
    await topics(bus, administration);
  },

  /** At the port of HTTP. */
  async "admin-rules"(bus) {
    const { amqpPort, httpPort, connectionString } = bus.emulator;
    const administration = bus.administration(connectionString.replace(`:${amqpPort}`, `:${httpPort}`));
    const rule = async (...path) => ({ ...(await administration.getRule(...path)) });
    assert.deepEqual(await rule("filtered", "sql", "large-orders"), {
      name: "large-orders",
      filter: sql("quantity > 10 AND colour IN ('red', 'blue')"),
      action: sql("SET priority = 'high'; SET doubled = quantity * 2; REMOVE colour"),
    });
    assert.deepEqual(await rule("filtered", "correlation", "red-important"), {
      name: "red-important",
      filter: { ...NOTHING_SAID, correlationId: "important", applicationProperties: { colour: "red" } },
      action: NO_ACTION,
    });
    assert.deepEqual(await rule("filtered", "all", "$Default"), {
      name: "$Default",
      filter: sql("1=1"),
      action: NO_ACTION,
    });
    assert.deepEqual(await rule("filtered", "none", "nothing"), {
      name: "nothing",
      filter: sql("1=0"),
      action: NO_ACTION,
    });

    const at = ["ruled", "rules"];
    const due = new Date("2026-12-24T17:00:05.000Z");
    const correlation = {
      correlationId: "c",
      subject: "order & <more>",
      messageId: "m",
      to: "kitchen",
      replyTo: "answers",
      replyToSessionId: "rs",
      contentType: "text/plain",
      applicationProperties: { text: "a & b", number: 5, fraction: 0.5, yes: true, due },
    };
    const created = await administration.createRule(...at, "correlated", correlation);
    const correlated = { name: "correlated", filter: { ...NOTHING_SAID, ...correlation }, action: NO_ACTION };
    assert.deepEqual({ ...created }, correlated);
    assert.deepEqual(await rule(...at, "correlated"), correlated);
    const large = { name: "large", filter: sql("quantity > 10"), action: sql("SET size = 'large'") };
    assert.deepEqual({ ...(await administration.createRule(...at, "large", large.filter, large.action)) }, large);
    assert.deepEqual(await all(administration.listRules(...at)), ["$Default", "correlated", "large"]);

    await assert.rejects(administration.createRule(...at, "large", sql("1=1")), exists);
    await assert.rejects(administration.createRule(...at, "broken", sql("quantity >")), refused);
    await assert.rejects(administration.createRule("ruled", "missing", "r", sql("1=1")), notFound);
    await assert.rejects(administration.getRule(...at, "missing"), notFound);
    await assert.rejects(administration.deleteRule(...at, "missing"), notFound);
    assert.equal(await administration.ruleExists(...at, "missing"), false);
    await administration.deleteRule(...at, "$Default");

    const sender = bus.sender("ruled");
    const receiver = bus.receiver("ruled/rules");
    const order = {
      body: "order",
      ...correlation,
      applicationProperties: { ...correlation.applicationProperties, other: 1 },
    };
    await sender.sendMessages([
      order,
      { ...order, body: "another number", applicationProperties: { ...correlation.applicationProperties, number: 6 } },
      { body: "small", applicationProperties: { quantity: 10 } },
      { body: "large", applicationProperties: { quantity: 11 } },
    ]);
    const received = await consume(receiver, 2);
    assert.deepEqual(bodies(received), ["order", "large"]);
    assert.deepEqual(received[1].applicationProperties, { quantity: 11, size: "large" });
    await assertEmpty(receiver);

    await administration.deleteRule(...at, "correlated");
    const changed = { ...large, filter: sql("quantity >= 20 AND colour = 'red'") };
    assert.deepEqual({ ...(await administration.updateRule(...at, changed)) }, changed);
    assert.deepEqual(await rule(...at, "large"), changed);
    await sender.sendMessages([
      { body: "too small", applicationProperties: { quantity: 19, colour: "red" } },
      { body: "large and red", applicationProperties: { quantity: 20, colour: "red" } },
    ]);
    assert.deepEqual(bodies(await consume(receiver)), ["large and red"]);
    await assert.rejects(administration.updateRule(...at, { ...large, name: "missing" }), notFound);
    // Parameters are refused, not ignored.
    await assert.rejects(
      administration.createRule(...at, "open", sql("quantity >= @least", { "@least": 20 })),
      refused,
    );
  },
};
