// Bodies and properties of every type that the SDK, or AMQP beneath it, has.

import assert from "node:assert/strict";

import rhea from "rhea";

import { assertEmpty, bodies, consume, everythingIn, take } from "./bus.mjs";

const { types: amqp } = rhea;

// A property's value, and what a receiver gets where that is something else: AMQP's wide numbers as eight bytes.
const LONG_BYTES = Buffer.from("8000000000000000", "hex");
const ULONG_BYTES = Buffer.from("ffffffffffffffff", "hex");
const UUID_BYTES = Buffer.from("00112233445566778899aabbccddeeff", "hex");
const DATE = new Date("2026-12-24T17:00:05.250Z");
const PROPERTIES = {
  string: ["Zürich 🎉"],
  empty: [""],
  long_string: ["x".repeat(300)],
  true: [true],
  false: [false],
  null: [null],
  zero: [0],
  small: [200],
  negative: [-129],
  largest_uint: [4294967295],
  wide: [4294967296],
  smallest_int: [-2147483648],
  safe: [Number.MAX_SAFE_INTEGER],
  fraction: [-0.1],
  huge: [amqp.wrap_double(1e300), 1e300],
  date: [DATE],
  before_1970: [new Date("1969-12-31T23:59:59.999Z")],
  long: [amqp.wrap_long(LONG_BYTES), LONG_BYTES],
  small_long: [amqp.wrap_long(-5), -5],
  ulong: [amqp.wrap_ulong(ULONG_BYTES), ULONG_BYTES],
  int: [amqp.wrap_int(-70000), -70000],
  short: [amqp.wrap_short(-300), -300],
  ushort: [amqp.wrap_ushort(65535), 65535],
  byte: [amqp.wrap_byte(-7), -7],
  ubyte: [amqp.wrap_ubyte(250), 250],
  double: [amqp.wrap_double(2), 2],
  float: [amqp.wrap_float(0.25), 0.25],
  char: [amqp.wrap_char(0x1f389), 0x1f389],
  symbol: [amqp.wrap_symbol("red"), "red"],
  uuid: [amqp.wrap_uuid(UUID_BYTES), UUID_BYTES],
  binary: [Buffer.from([0, 255, 1]), Buffer.from([0, 255, 1])],
};
const SENT = Object.fromEntries(Object.entries(PROPERTIES).map(([name, [value]]) => [name, value]));
const RECEIVED = Object.fromEntries(Object.entries(PROPERTIES).map(([name, pair]) => [name, pair[pair.length - 1]]));

const JSON_BODIES = [{ a: [1, "two", null] }, [1, 2], "text", "", 17, -0.5, true, false, null];
const BINARY_BODIES = [Buffer.from([0, 255, 128, 10]), Buffer.alloc(0), Buffer.from('{"not":"parsed"}')];
const VALUE_BODIES = ["text", "", 17, -5, 0.5, true, false, null, DATE, [1, "two", null], { a: 1, b: { c: [true] } }];
const SEQUENCE_BODIES = [[1, "two", null, 0.5, true], []];

async function assertSameBodies(received, sent, bodyType) {
  assert.deepEqual(bodies(received), sent);
  for (const message of received) assert.equal(message._rawAmqpMessage.bodyType, bodyType);
}

export const types = {
  async "types-round-trip"(bus) {
    const sender = bus.sender("types");
    const receiver = bus.receiver("types");
    const raw = bus.receiver("types", { skipParsingBodyAsJson: true, skipConvertingDate: true });

    // Alone and in a batch; browsed, received and received again.
    await sender.sendMessages({ body: "alone", applicationProperties: SENT });
    await sender.sendMessages([{ body: "in a batch", applicationProperties: SENT }]);
    for (const message of await everythingIn(raw)) assert.deepEqual(message.applicationProperties, RECEIVED);
    const [alone, inBatch] = await take(raw, 2);
    for (const message of [alone, inBatch]) {
      assert.deepEqual(message.applicationProperties, RECEIVED);
      await raw.abandonMessage(message, { changed: DATE });
    }
    for (const message of await consume(raw, 2)) {
      assert.deepEqual(message.applicationProperties, { ...RECEIVED, changed: DATE });
    }
    // By default the SDK makes numbers of dates.
    await sender.sendMessages({ body: "x", applicationProperties: { at: DATE } });
    const [dated] = await consume(receiver);
    assert.deepEqual(dated.applicationProperties, { at: DATE.getTime() });

    await sender.sendMessages(JSON_BODIES.map((body) => ({ body })));
    await assertSameBodies(await consume(receiver, JSON_BODIES.length), JSON_BODIES, "data");
    await sender.sendMessages(BINARY_BODIES.map((body) => ({ body })));
    await assertSameBodies(await consume(raw, BINARY_BODIES.length), BINARY_BODIES, "data");
    for (const [bodyType, all] of Object.entries({ value: VALUE_BODIES, sequence: SEQUENCE_BODIES })) {
      const messages = all.map((body) => ({ body, bodyType }));
      await sender.sendMessages(messages);
      for (const message of messages) await sender.sendMessages(message);
      await assertSameBodies(await everythingIn(raw), [...all, ...all], bodyType);
      await assertSameBodies(await consume(raw, 2 * all.length), [...all, ...all], bodyType);
    }

    // Ids need not be strings.
    await sender.sendMessages({ body: "ids", messageId: 17, correlationId: UUID_BYTES });
    const [ids] = await consume(receiver);
    assert.equal(String(ids.messageId), "17");
    assert.equal(
      Buffer.isBuffer(ids.correlationId) ? ids.correlationId.toString("hex") : ids.correlationId.replaceAll("-", ""),
      UUID_BYTES.toString("hex"),
    );
    await assertEmpty(receiver);
  },
};
