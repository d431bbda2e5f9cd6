// What the steps say of messages and entities, in Service Bus's words: bodies, lock tokens, `$management`.

import assert from "node:assert/strict";
import { Failure, manage, messages, send, types } from "./peer.mjs";

/** A message with a body of bytes, as the SDKs send it. */
export const data = (text, properties = {}) => ({ body: messages.data_section(Buffer.from(text)), ...properties });

export const textOf = ({ message }) => message.body.content.toString();

export const textsOf = (taken) => taken.map(textOf);

/** The lock token in the order of `$management`; in a delivery tag it is in .NET's. */
export function lockToken({ delivery: { tag } }) {
  assert.equal(tag.length, 16);
  return Buffer.from([tag[3], tag[2], tag[1], tag[0], tag[5], tag[4], tag[7], tag[6], ...tag.subarray(8)]);
}

/** The bodies of all that an entity holds, locked or not. */
export async function peek(peer, entity) {
  const answer = await manage(
    peer,
    entity,
    "com.microsoft:peek-message",
    types.wrap_map({ "from-sequence-number": types.wrap_long(0), "message-count": types.wrap_int(100) }),
  );
  if (answer.status === 204) return [];
  assert.equal(answer.status, 200);
  return answer.body.messages.map(({ message }) => textOf({ message: messages.decode(message) }));
}

export async function sendAll(peer, entity, texts) {
  const sender = await peer.sender(entity);
  for (const text of texts) assert.equal((await send(peer, sender, data(text))).name, "accepted");
  return sender;
}

/** Completes a message without the link that it came by. */
export const complete = (peer, entity, taken) =>
  manage(
    peer,
    entity,
    "com.microsoft:update-disposition",
    types.wrap_map({
      "disposition-status": "completed",
      "lock-tokens": types.wrap_array([lockToken(taken)], types.Uuid.typecode),
    }),
  );

export const renewLock = (peer, entity, token) =>
  manage(
    peer,
    entity,
    "com.microsoft:renew-lock",
    types.wrap_map({ "lock-tokens": types.wrap_array([token], types.Uuid.typecode) }),
  );

export const receiveDeferred = (peer, entity, sequenceNumber) =>
  manage(
    peer,
    entity,
    "com.microsoft:receive-by-sequence-number",
    types.wrap_map({
      "sequence-numbers": types.wrap_array([sequenceNumber], types.Long.typecode),
      "receiver-settle-mode": types.wrap_uint(1),
    }),
  );

/** What is refused may be so by the outcome or by detaching the link. */
export async function answerOrFailure(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
}
