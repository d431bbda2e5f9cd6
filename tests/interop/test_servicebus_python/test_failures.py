"""The local Service Bus with `azure-servicebus`: many clients, a kill in between, and what has to be refused."""

import asyncio
from datetime import timedelta

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageState
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
)

from servicebus_sdk import assert_empty, bodies, body, everything_in, now, open_all, take, take_one

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # as in Bus.close


@pytest.mark.step("hundred-receivers")
async def test_hundred_receivers(bus):
    """A hundred connections that wait at the same time share what comes; each message goes to one of them."""
    sent = [f"message {number}" for number in range(500)]
    receivers = [bus.receiver("many") for _ in range(100)]
    got: list[bytes] = []

    async def work(receiver):
        mine = 0
        while len(got) < len(sent):
            for message in await receiver.receive_messages(5, max_wait_time=1):
                assert message.delivery_count == 0
                await receiver.complete_message(message)
                got.append(body(message))
                mine += 1
        return mine

    await open_all(*receivers)
    workers = [asyncio.create_task(work(receiver)) for receiver in receivers]
    await bus.sender("many").send_messages([ServiceBusMessage(text) for text in sent])
    shares = await asyncio.gather(*workers)
    assert sorted(got) == sorted(text.encode() for text in sent)
    # Nobody takes more at once than was asked for, so that many had to share.
    assert sum(shares) == len(sent)
    assert len([share for share in shares if share]) >= 50
    await assert_empty(bus.receiver("many"))


@pytest.mark.step("reconnect-after-kill")
async def test_reconnect_after_kill(bus):
    """What was confirmed is still there, what was completed is not, and clients that were there go on by themselves."""
    client = bus.another_client(retry_total=10, retry_mode="fixed", retry_backoff_factor=0.2)
    sender, receiver = bus.sender("reconnect", client), bus.receiver("reconnect", client)
    confirmed: list[bytes] = []
    sent: list[bytes] = []

    async def send_on(how_many: int):
        for _ in range(how_many):
            text = b"message %d" % len(sent)
            sent.append(text)
            await sender.send_messages(ServiceBusMessage(text))
            confirmed.append(text)

    await send_on(20)
    completed = await take(receiver, 5)
    for message in completed:
        await receiver.complete_message(message)
    # Killed while it is being sent to.
    sending = asyncio.create_task(send_on(200))
    while len(confirmed) < 60:
        await asyncio.sleep(0)
    bus.emulator.kill()
    bus.emulator.start_again()
    await sending
    assert confirmed == sent

    got: list[bytes] = []
    while set(got) < set(sent[5:]):
        message = await take_one(receiver)
        await receiver.complete_message(message)
        got.append(body(message))
    assert set(got) == set(sent[5:])
    # One more than once at most: the one that was on its way and was sent again.
    left_over = [body(message) for message in await everything_in(receiver)]
    assert len(got) + len(left_over) - len(set(got)) <= 1
    assert not set(bodies(completed)) & set(got + left_over)


@pytest.mark.step("reconnect-after-kill")
async def test_everything_is_there_after_a_kill(bus):
    """Dead letters, deferred and scheduled messages, session states, and the copies in subscriptions."""
    due = now() + timedelta(hours=1)
    sender, receiver = bus.sender("reconnect"), bus.receiver("reconnect")
    await sender.send_messages([ServiceBusMessage(text) for text in ("locked", "dead", "deferred")])
    await sender.schedule_messages(ServiceBusMessage("scheduled"), due)
    locked, dead, deferred = await take(receiver, 3)
    await receiver.dead_letter_message(dead, reason="NotFood", error_description="a book")
    await receiver.defer_message(deferred)
    await bus.topic_sender("fan").send_messages(ServiceBusMessage("fan"))
    await bus.sender("sessions").send_messages(ServiceBusMessage("in a session", session_id="a"))
    session = bus.receiver("sessions", session_id="a")
    await take_one(session)
    await session.session.set_state(b"state")
    bus.emulator.kill()
    bus.emulator.start_again()

    client = bus.another_client()
    receiver = bus.receiver("reconnect", client)
    peeked = await everything_in(receiver)
    assert [(body(message), message.state) for message in peeked] == [
        (b"locked", ServiceBusMessageState.ACTIVE),
        (b"deferred", ServiceBusMessageState.DEFERRED),
        (b"scheduled", ServiceBusMessageState.SCHEDULED),
    ]
    assert [message.sequence_number for message in peeked] == [1, 3, 4]
    assert peeked[2].scheduled_enqueue_time_utc == due
    # Nobody has it any more; that it was delivered counts.
    message = await take_one(receiver)
    assert (body(message), message.delivery_count) == (b"locked", 1)
    assert message.enqueued_time_utc == locked.enqueued_time_utc
    [message] = await receiver.receive_deferred_messages(3)
    assert body(message) == b"deferred"
    message = await take_one(bus.receiver("reconnect", client, sub_queue="deadletter"))
    assert (body(message), message.dead_letter_reason) == (b"dead", "NotFood")
    for subscription in ("fan/s1", "fan/s2"):
        assert bodies(await everything_in(bus.receiver(subscription, client))) == [b"fan"]
    session = bus.receiver("sessions", client, session_id="a")
    assert bodies(await take(session)) == [b"in a session"]
    assert await session.session.get_state() == b"state"
    assert await bus.sender("reconnect", client).schedule_messages(ServiceBusMessage("next"), due) == [5]


@pytest.mark.step("unknown-entity")
async def test_unknown_entity(bus):
    with pytest.raises(MessagingEntityNotFoundError):
        await bus.sender("nowhere").send_messages(ServiceBusMessage("lost"))
    with pytest.raises(MessagingEntityNotFoundError):
        await take(bus.receiver("nowhere"))
    with pytest.raises(MessagingEntityNotFoundError):
        await take(bus.receiver("fan/nobody"))
    with pytest.raises(MessagingEntityNotFoundError):
        await take(bus.receiver("nowhere", session_id="a"))
    # Everybody else is unharmed.
    await bus.sender("plain").send_messages(ServiceBusMessage("found"))
    assert bodies(await take(bus.receiver("plain"))) == [b"found"]


@pytest.mark.step("bad-key")
async def test_bad_key(bus):
    good = bus.emulator.connection_string
    for bad in (
        good.replace("SharedAccessKey=SAS_KEY_VALUE", "SharedAccessKey=WRONG_KEY_VALUE"),
        good.replace("RootManageSharedAccessKey", "SomebodyElse"),
    ):
        assert bad != good
        client = bus.another_client(bad)
        with pytest.raises(ServiceBusAuthenticationError):
            await bus.sender("plain", client).send_messages(ServiceBusMessage("forged"))
        with pytest.raises(ServiceBusAuthenticationError):
            await take(bus.receiver("plain", client))
    await assert_empty(bus.receiver("plain"))


@pytest.mark.step("message-too-large")
async def test_message_too_large(bus):
    sender, receiver = bus.sender("plain"), bus.receiver("plain")
    await sender.send_messages(ServiceBusMessage("small"))
    with pytest.raises(MessageSizeExceededError):
        await sender.send_messages(ServiceBusMessage(bytes(300 * 1024)))
    batch = await sender.create_message_batch()
    assert batch.max_size_in_bytes == 256 * 1024
    with pytest.raises(MessageSizeExceededError):
        batch.add_message(ServiceBusMessage(bytes(300 * 1024)))
    # The sender is not broken by it.
    await sender.send_messages(ServiceBusMessage(bytes(255 * 1024)))
    assert [len(body(message)) for message in await take(receiver, 2)] == [5, 255 * 1024]
