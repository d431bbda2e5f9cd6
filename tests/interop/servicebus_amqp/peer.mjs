// A client of AMQP 1.0 that knows nothing of Service Bus: `rhea`, with promises instead of events.
//
// Each wait ends with the event, with the peer's error about the link or connection, or after a time that says that the
// peer is stuck. `Failure.condition` is the peer's.

import { createHmac } from "node:crypto";
import rhea from "rhea";

const { message: messages, types } = rhea;
const PATIENCE_MS = 20_000;
/** The field's place in a transfer. */
const TRANSFER_STATE = 7;
const KEY_NAME = "RootManageSharedAccessKey";
const KEY = "SAS_KEY_VALUE";

// Messages keep the bytes that they came in, for those who care for the types on the wire.
const decode = messages.decode;
messages.decode = (bytes) => Object.assign(decode(bytes), { bytes });

export class Failure extends Error {
  constructor(event, error) {
    super(`${event}: ${error?.condition ?? error?.message ?? "no reason given"}: ${error?.description ?? ""}`);
    this.condition = error?.condition;
    this.description = error?.description;
  }
}

/** Resolves with the context of the event for which `matches` holds; rejects when one of `failures` comes first. */
export function event(emitter, name, failures = [], matches = () => true) {
  return new Promise((resolve, reject) => {
    const listeners = [];
    const done = () => {
      clearTimeout(timer);
      for (const [event, listener] of listeners) emitter.removeListener(event, listener);
    };
    const on = (event, listener) => {
      listeners.push([event, listener]);
      emitter.on(event, listener);
    };
    const timer = setTimeout(() => {
      done();
      reject(new Error(`waited ${PATIENCE_MS} ms for ${name}`));
    }, PATIENCE_MS);
    // Nobody waits for it when there is no connection left.
    timer.unref();
    on(name, (context) => {
      if (!matches(context)) return;
      done();
      resolve(context);
    });
    for (const failure of failures) {
      on(failure, (context) => {
        done();
        reject(new Failure(failure, (context.receiver ?? context.sender ?? {}).error ?? context.error));
      });
    }
  });
}

/** What a promise is rejected with; that it is not is a failure of its own. */
export async function failureOf(promise) {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

/** The token that opens a resource until then. */
export function sharedAccessSignature(resource, { keyName = KEY_NAME, key = KEY, expiry } = {}) {
  const audience = encodeURIComponent(resource);
  const end = expiry ?? Math.floor(Date.now() / 1000) + 3600;
  const signature = createHmac("sha256", key).update(`${audience}\n${end}`).digest("base64");
  return `SharedAccessSignature sr=${audience}&sig=${encodeURIComponent(signature)}&se=${end}&skn=${keyName}`;
}

const described = (code, value) => types.described(types.wrap_ulong(code), value);

/** A message of one described value, encoded: rhea forgets one of two descriptors. */
function describedValue(value) {
  const writer = new types.Writer();
  writer.write(value);
  return Buffer.concat([Buffer.from([0x00, 0x53, 0x77]), writer.toBuffer()]);
}

const errorList = ({ condition, description, info }) =>
  types.wrap_list([types.wrap_symbol(condition), description, info]);

export const outcome = {
  accepted: () => messages.accepted().described(),
  released: () => messages.released().described(),
  /** The information is an AMQP map, as SDKs differ in the type of its keys. */
  rejected: (error) => described(0x25, types.wrap_list(error ? [described(0x1d, errorList(error))] : [])),
  modified: (fields) => messages.modified(fields).described(),
  /** The state of what is done within a transaction. */
  inTransaction: (id, inner) => described(0x34, types.wrap_list([types.wrap_binary(id), ...(inner ? [inner] : [])])),
};

/** The name of a delivery state, and what is in it. */
export function stateOf(delivery) {
  const state = delivery.remote_state;
  if (state?.constructor.composite_type) {
    const error = state.error ?? undefined;
    return { name: state.constructor.composite_type, condition: error?.condition, description: error?.description };
  }
  if (!state?.descriptor) return { name: "none" };
  const names = { 0x33: "declared", 0x34: "transactional" };
  const [id, inner] = state.value;
  return { name: names[state.descriptor.value], id: id.value, inner: inner?.descriptor?.value };
}

/** One connection; `options` are rhea's, and decide how it says who it is. */
export class Peer {
  static async connect(port, options = { username: KEY_NAME, password: KEY }) {
    const peer = new Peer();
    peer.connection = rhea.create_container().connect({
      host: "127.0.0.1",
      hostname: "localhost",
      port,
      reconnect: false,
      ...options,
    });
    peer.connection.on("disconnected", () => {});
    peer.connection.on("error", () => {});
    await event(peer.connection, "connection_open", ["connection_error", "disconnected"]);
    peer.session = peer.connection.create_session();
    peer.session.begin();
    peer.states = new Map();
    const output = peer.session.output.bind(peer.session);
    // rhea has no way to give a transfer a state.
    peer.session.output = (frame, payload) => {
      const state = peer.states.get(frame.delivery_tag?.toString());
      if (state) frame.value[TRANSFER_STATE] = state;
      output(frame, payload);
    };
    // Nor does it tell of a broker's answer that leaves the delivery unsettled, as one within a transaction may.
    const incoming = peer.session.incoming;
    incoming.on_disposition = (fields) => {
      Object.getPrototypeOf(incoming).on_disposition.call(incoming, fields);
      for (let id = fields.first; id <= (fields.last ?? fields.first); id++) {
        const delivery = incoming.deliveries.by_id(id);
        if (delivery) delivery.link.emit("answered", { delivery });
      }
    };
    return peer;
  }

  async close() {
    const closed = event(this.connection, "connection_close");
    this.connection.close();
    await closed;
  }

  async sender(target, options = {}) {
    const sender = this.session.attach_sender({ target, ...options });
    await event(sender, "sendable", ["sender_error", "sender_close"]);
    return sender;
  }

  async coordinator() {
    const sender = this.session.create_sender(rhea.generate_uuid(), {});
    sender.set_source({});
    const capabilities = types.wrap_array(["amqp:local-transactions", "amqp:multi-txns-per-ssn"], 0xa3);
    sender.local.attach.target = described(0x30, types.wrap_list([capabilities]));
    sender.attach();
    await event(sender, "sendable", ["sender_error", "sender_close"]);
    return sender;
  }

  /** A receiver without credit; those that lock messages wait for the broker's word about each settlement. */
  async receiver(source, options = {}) {
    const receiver = this.session.attach_receiver({
      source,
      credit_window: 0,
      autoaccept: false,
      rcv_settle_mode: 1,
      ...options,
    });
    const failures = ["receiver_error", "receiver_close"];
    // One without a source, which rhea keeps as an AMQP null, is about to be detached with the reason.
    await event(receiver, "receiver_open", failures, () => receiver.source?.value);
    return receiver;
  }
}

let tags = 0;

/** Sends and waits until it is settled; the delivery has the broker's answer in it. */
export async function send(peer, sender, message, { state, format } = {}) {
  const tag = Buffer.from(`tag-${tags++}`);
  if (state) peer.states.set(tag.toString(), state);
  const settled = event(
    sender,
    "settled",
    ["sender_error", "sender_close"],
    (context) => context.delivery.tag.toString() === tag.toString(),
  );
  sender.send(message, tag, format);
  return stateOf((await settled).delivery);
}

/** That many messages, each with its delivery. */
export async function take(receiver, count = 1) {
  const taken = [];
  const all = event(receiver, "message", ["receiver_error", "receiver_close"], ({ message, delivery }) => {
    taken.push({ message, delivery });
    return taken.length === count;
  });
  receiver.add_credit(count);
  await all;
  return taken;
}

/** All that are there, by asking for more and having the rest of the credit drained. */
export async function drain(receiver, credit) {
  const taken = [];
  const listener = ({ message, delivery }) => taken.push({ message, delivery });
  receiver.on("message", listener);
  const drained = event(receiver, "receiver_drained", ["receiver_error", "receiver_close"]);
  receiver.add_credit(credit);
  receiver.drain_credit();
  await drained;
  receiver.drain = false;
  receiver.removeListener("message", listener);
  return taken;
}

/** Settles as one who waits for the broker's word does. */
export async function settle(receiver, { delivery }, state) {
  const answered = event(
    receiver,
    "answered",
    ["receiver_error", "receiver_close"],
    (context) => context.delivery === delivery,
  );
  delivery.update(false, state);
  await answered;
  const answer = stateOf(delivery);
  if (answer.name !== "transactional" && !delivery.remote_settled) throw new Error("the broker did not settle it");
  return answer;
}

/** A request to a node such as `$cbs` or `queue/$management`, and its response. */
export async function ask(peer, node, properties, body, transaction) {
  const replyTo = rhea.generate_uuid();
  const receiver = await peer.receiver(node, { target: replyTo, rcv_settle_mode: 0, autoaccept: true });
  const sender = await peer.sender(node, { source: replyTo });
  const answer = take(receiver);
  const request = { message_id: replyTo, reply_to: replyTo, application_properties: properties, body };
  const state = transaction && outcome.inTransaction(transaction.id);
  const taken = await send(peer, sender, request, { state });
  if (taken.name === "rejected") throw new Failure("request rejected", taken);
  const [{ message }] = await answer;
  if (message.correlation_id !== replyTo) throw new Error(`answer to ${message.correlation_id}, not to ${replyTo}`);
  sender.close();
  receiver.close();
  return message;
}

export async function putToken(peer, audience, token) {
  const properties = { operation: "put-token", type: "servicebus.windows.net:sastoken", name: audience };
  const { application_properties: answer } = await ask(peer, "$cbs", properties, token);
  return answer["status-code"];
}

export async function manage(peer, entity, operation, body, transaction) {
  const { application_properties: properties, body: answer } = await ask(
    peer,
    `${entity}/$management`,
    { operation, "com.microsoft:server-timeout": types.wrap_uint(PATIENCE_MS) },
    body,
    transaction,
  );
  return { status: properties.statusCode, condition: properties.errorCondition, body: answer };
}

/** The peers of one transaction: what is done in it is done when it is discharged. */
export class Transaction {
  static async declare(peer) {
    const transaction = new Transaction();
    transaction.peer = peer;
    transaction.coordinator = await peer.coordinator();
    const declare = describedValue(described(0x31, types.wrap_list([null])));
    const state = await send(peer, transaction.coordinator, declare, { format: 0 });
    if (state.name !== "declared") throw new Failure(`declare answered with ${state.name}`, state);
    transaction.id = state.id;
    return transaction;
  }

  discharge(fail) {
    const discharge = described(0x32, types.wrap_list([types.wrap_binary(this.id), types.wrap_boolean(fail)]));
    return send(this.peer, this.coordinator, describedValue(discharge), { format: 0 });
  }

  commit() {
    return this.discharge(false);
  }

  rollBack() {
    return this.discharge(true);
  }

  send(sender, message) {
    return send(this.peer, sender, message, { state: outcome.inTransaction(this.id) });
  }

  /** What becomes of the message is open until the discharge: the answer does not settle it. */
  settle(receiver, taken, inner) {
    return settle(receiver, taken, outcome.inTransaction(this.id, inner));
  }
}

export { messages, rhea, types };
