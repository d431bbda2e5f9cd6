// What is on the wire, byte for byte where it matters: annotations, types, bodies, batches.

import assert from "node:assert/strict";
import { Peer, messages, send, take, types } from "./peer.mjs";
import { data, lockToken, sendAll, textsOf } from "./queue.mjs";

const BODY_SECTIONS = [0x75, 0x76, 0x77];

function* readSections(bytes) {
  const reader = new types.Reader(bytes);
  while (reader.remaining()) yield reader.read();
}

const sectionsOf = (bytes) => new Map([...readSections(bytes)].map((section) => [section.descriptor.value, section]));

const bodyOf = (bytes) =>
  [...readSections(bytes)].filter(({ descriptor }) => BODY_SECTIONS.includes(descriptor.value)).map(typed);

/** The name of an AMQP type, whichever of its encodings was chosen. */
function typeOf({ type }) {
  const name = type.name.replace(/^Small/, "").replace(/(0|8|32)$/, "");
  return { True: "Boolean", False: "Boolean", CharUTF: "Char" }[name] ?? name;
}

/** Descriptor, type and content of a value, in a form that can be compared. */
function typed(value) {
  const content = Array.isArray(value.value) ? value.value.map(typed) : plain(value.value);
  return [value.descriptor ? plain(value.descriptor.value) : null, typeOf(value), content];
}

function plain(value) {
  if (Buffer.isBuffer(value)) return value.toString("hex");
  return value instanceof Date ? value.getTime() : value;
}

/** The entries of a map, by name. */
function entriesOf(map) {
  const entries = {};
  for (let index = 0; index < map.value.length; index += 2) {
    entries[map.value[index].value] = typed(map.value[index + 1]);
  }
  return entries;
}

export async function annotations(port) {
  const peer = await Peer.connect(port);
  const before = Date.now();
  await sendAll(peer, "plain", ["m"]);
  const [taken] = await take(await peer.receiver("plain"));
  const { message } = taken;
  const sections = sectionsOf(message.bytes);
  // The count is written even when it is zero: .NET reads it without asking.
  const deliveryCount = sections.get(0x70).value[4];
  assert.deepEqual(typed(deliveryCount), [null, "Uint", 0]);
  const annotations = sections.get(0x72);
  for (let index = 0; index < annotations.value.length; index += 2) {
    assert.equal(typeOf(annotations.value[index]), "Sym");
  }
  const named = entriesOf(annotations);
  assert.deepEqual(named["x-opt-sequence-number"], [null, "Long", 1]);
  assert.deepEqual(named["x-opt-enqueue-sequence-number"], [null, "Long", 1]);
  const [, enqueuedType, enqueued] = named["x-opt-enqueued-time"];
  assert.equal(enqueuedType, "Timestamp");
  assert.ok(enqueued >= before && enqueued <= Date.now());
  const [, lockedType, locked] = named["x-opt-locked-until"];
  assert.equal(lockedType, "Timestamp");
  assert.ok(locked > before + 55_000 && locked <= Date.now() + 60_000);
  assert.equal(lockToken(taken).length, 16);
  await peer.close();
}

export async function types_on_the_wire(port) {
  const peer = await Peer.connect(port);
  const sender = await peer.sender("types");
  const uuid = Buffer.from("123456789abc4def8123456789abcdef", "hex");
  const properties = {
    string: "Größe",
    symbol: types.wrap_symbol("symbolic"),
    boolean: true,
    null: null,
    ubyte: types.wrap_ubyte(200),
    byte: types.wrap_byte(-100),
    ushort: types.wrap_ushort(60_000),
    short: types.wrap_short(-30_000),
    uint: types.wrap_uint(4_000_000_000),
    "small uint": types.wrap_uint(7),
    "uint zero": types.wrap_uint(0),
    int: types.wrap_int(-2_000_000_000),
    "small int": types.wrap_int(-7),
    ulong: types.wrap_ulong(2 ** 50),
    "largest ulong": types.wrap_ulong(Buffer.alloc(8, 0xff)),
    long: types.wrap_long(-(2 ** 50)),
    "small long": types.wrap_long(7),
    float: types.wrap_float(1.5),
    double: types.wrap_double(2.5),
    char: types.wrap_char(0x1f600),
    timestamp: types.wrap_timestamp(1_795_376_400_123),
    uuid: types.wrap_uuid(uuid),
    binary: types.wrap_binary(Buffer.from([0, 255])),
  };
  const sent = data("typed", { application_properties: properties });
  assert.equal((await send(peer, sender, sent)).name, "accepted");
  const [{ message }] = await take(await peer.receiver("types"));
  const expected = sectionsOf(messages.encode(sent)).get(0x74);
  assert.deepEqual(entriesOf(sectionsOf(message.bytes).get(0x74)), entriesOf(expected));
  await peer.close();
}

export async function bodies_on_the_wire(port) {
  const peer = await Peer.connect(port);
  const sender = await peer.sender("types");
  const sent = [
    messages.data_section(Buffer.from("one")),
    messages.data_sections([Buffer.from("one"), Buffer.from("two")]),
    messages.sequence_section([1, "two", null]),
    messages.sequence_sections([[1], ["two", true]]),
    types.wrap_map({ key: types.wrap_long(1), list: [types.wrap_int(1), "x"] }),
    types.wrap_ubyte(3),
    types.wrap_string("text"),
    types.wrap_list([types.wrap_symbol("s"), types.wrap_uuid(Buffer.alloc(16, 7))]),
  ].map((body) => ({ body }));
  for (const message of sent) assert.equal((await send(peer, sender, message)).name, "accepted");
  const taken = await take(await peer.receiver("types"), sent.length);
  assert.deepEqual(
    taken.map(({ message }) => bodyOf(message.bytes)),
    sent.map((message) => bodyOf(messages.encode(message))),
  );
  await peer.close();
}

export async function batches(port) {
  const peer = await Peer.connect(port);
  const sender = await peer.sender("plain");
  const batch = messages.encode({
    body: messages.data_sections(
      ["one", "two", "three"].map((text) => messages.encode(data(text, { message_id: text, subject: "s" }))),
    ),
  });
  assert.equal((await send(peer, sender, batch, { format: 0x80013700 })).name, "accepted");
  const taken = await take(await peer.receiver("plain"), 3);
  assert.deepEqual(textsOf(taken), ["one", "two", "three"]);
  assert.deepEqual(taken.map(({ message }) => message.message_id), ["one", "two", "three"]);
  assert.deepEqual(taken.map(({ message }) => message.subject), ["s", "s", "s"]);
  await peer.close();
}
