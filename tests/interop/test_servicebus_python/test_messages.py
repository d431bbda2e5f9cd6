"""The local Service Bus with `azure-servicebus`, unmodified, over AMQP: messages that are sent, received and settled.

Each step runs with the synchronous and the asynchronous client. Every test has an emulator of its own, so that sequence
numbers begin at 1 and whatever is left is seen. That something is *not* there is shown by peeking at all that is.
"""

import uuid
from datetime import timedelta

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageState, ServiceBusReceiveMode
from azure.servicebus.amqp import AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
)

from servicebus_sdk import (
    MINUTE,
    SLACK,
    TIME_TO_LIVE,
    assert_empty,
    bodies,
    body,
    everything_in,
    now,
    open_all,
    take,
    take_one,
    until,
)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # as in Bus.close


@pytest.mark.step("single-send")
async def test_single_send(bus):
    sent = ServiceBusMessage(
        "Käsespätzle",
        message_id="m-1",
        subject="order.placed",
        content_type="text/plain; charset=utf-8",
        correlation_id="c-1",
        to="kitchen",
        reply_to="till",
        reply_to_session_id="till-7",
        partition_key="p-1",
        time_to_live=timedelta(minutes=5),
        application_properties={"vendor": "bakery"},
    )
    before = now()
    await bus.sender("plain").send_messages(sent)
    after = now()
    message = await take_one(bus.receiver("plain"))
    assert message.body_type == AmqpMessageBodyType.DATA
    assert body(message) == "Käsespätzle".encode()
    assert message.message_id == "m-1"
    assert message.subject == "order.placed"
    assert message.content_type == "text/plain; charset=utf-8"
    assert message.correlation_id == "c-1"
    assert message.to == "kitchen"
    assert message.reply_to == "till"
    assert message.reply_to_session_id == "till-7"
    assert message.partition_key == "p-1"
    assert message.session_id is None
    assert message.application_properties == {b"vendor": b"bakery"}
    assert message.sequence_number == 1
    assert message.enqueued_sequence_number == 1
    assert message.delivery_count == 0
    assert message.state == ServiceBusMessageState.ACTIVE
    assert before <= message.enqueued_time_utc <= after
    assert message.time_to_live == timedelta(minutes=5)
    assert message.expires_at_utc == message.enqueued_time_utc + timedelta(minutes=5)
    assert message.scheduled_enqueue_time_utc is None
    assert message.dead_letter_reason is None
    assert message.dead_letter_error_description is None
    assert message.dead_letter_source is None
    assert isinstance(message.lock_token, uuid.UUID)
    assert after + MINUTE - SLACK < message.locked_until_utc <= now() + MINUTE


@pytest.mark.step("single-send")
async def test_single_send_with_defaults(bus):
    await bus.sender("plain").send_messages(ServiceBusMessage(b""))
    message = await take_one(bus.receiver("plain"))
    assert bodies([message]) == [b""]
    assert message.application_properties is None
    assert message.content_type is None
    assert message.subject is None
    # The queue's own time to live, as the message has none.
    assert message.expires_at_utc == message.enqueued_time_utc + TIME_TO_LIVE


@pytest.mark.step("single-send")
async def test_streaming(bus):
    sender, receiver = bus.sender("plain"), bus.receiver("plain", max_wait_time=1)
    await open_all(sender, receiver)
    for number in range(5):
        await sender.send_messages(ServiceBusMessage(f"m{number}"))
    got = []
    # It ends when none comes for a second.
    async for message in receiver:
        got.append(body(message))
        await receiver.complete_message(message)
    assert got == [b"m0", b"m1", b"m2", b"m3", b"m4"]
    await assert_empty(receiver)


@pytest.mark.step("batch-send")
async def test_batch_send(bus):
    sender, receiver = bus.sender("plain"), bus.receiver("plain")
    batch = await sender.create_message_batch()
    for number in range(100):
        batch.add_message(
            ServiceBusMessage(
                f"body {number}",
                message_id=f"m-{number}",
                subject=f"subject {number}",
                application_properties={"number": number},
            )
        )
    await sender.send_messages(batch)
    await sender.send_messages([ServiceBusMessage("list 0"), ServiceBusMessage("list 1")])
    messages = await take(receiver, 102)
    assert bodies(messages) == [*(b"body %d" % number for number in range(100)), b"list 0", b"list 1"]
    assert [message.sequence_number for message in messages] == list(range(1, 103))
    assert [message.message_id for message in messages[:100]] == [f"m-{number}" for number in range(100)]
    assert [message.subject for message in messages[:100]] == [f"subject {number}" for number in range(100)]
    assert [message.application_properties for message in messages[:100]] == [
        {b"number": number} for number in range(100)
    ]
    assert len({message.lock_token for message in messages}) == 102


@pytest.mark.step("peek")
async def test_peek(bus):
    sender, receiver = bus.sender("peeked"), bus.receiver("peeked")
    assert await receiver.peek_messages(10) == []
    before = now()
    await sender.send_messages([ServiceBusMessage(f"peek {number}", subject=f"s{number}") for number in range(5)])
    # Without a sequence number each goes on behind the one before.
    assert bodies(await receiver.peek_messages(2)) == [b"peek 0", b"peek 1"]
    assert bodies(await receiver.peek_messages(2)) == [b"peek 2", b"peek 3"]
    assert bodies(await receiver.peek_messages(2)) == [b"peek 4"]
    assert await receiver.peek_messages(2) == []
    assert bodies(await receiver.peek_messages(2, sequence_number=4)) == [b"peek 3", b"peek 4"]
    # One that is locked is still shown, and none of this was a delivery.
    [locked] = await take(receiver)
    assert locked.delivery_count == 0
    peeked = await everything_in(receiver)
    assert bodies(peeked) == [b"peek %d" % number for number in range(5)]
    assert [message.sequence_number for message in peeked] == [1, 2, 3, 4, 5]
    assert [message.subject for message in peeked] == [f"s{number}" for number in range(5)]
    assert [message.delivery_count for message in peeked[1:]] == [0, 0, 0, 0]
    assert {message.state for message in peeked} == {ServiceBusMessageState.ACTIVE}
    for message in peeked:
        assert before <= message.enqueued_time_utc <= now()
        assert message.expires_at_utc == message.enqueued_time_utc + TIME_TO_LIVE
    with pytest.raises(ValueError, match="not supported for peeked messages"):
        await receiver.complete_message(peeked[1])


@pytest.mark.step("complete")
async def test_complete(bus):
    sender, receiver = bus.sender("plain"), bus.receiver("plain")
    await sender.send_messages([ServiceBusMessage("first"), ServiceBusMessage("second")])
    first, second = await take(receiver, 2)
    await receiver.complete_message(first)
    assert bodies(await everything_in(receiver)) == [b"second"]
    with pytest.raises(MessageAlreadySettled):
        await receiver.complete_message(first)
    await receiver.complete_message(second)
    await assert_empty(receiver)


@pytest.mark.step("complete")
async def test_what_was_prefetched_and_not_taken_is_given_back(bus):
    receiver = bus.receiver("plain", prefetch_count=10)
    await bus.sender("plain").send_messages([ServiceBusMessage(f"m{number}") for number in range(20)])
    await receiver.complete_message(await take_one(receiver))
    await receiver.close()
    # At once, and none of that was a delivery.
    messages = await take(bus.receiver("plain"), 19)
    assert bodies(messages) == [b"m%d" % number for number in range(1, 20)]
    assert {message.delivery_count for message in messages} == {0}


@pytest.mark.step("abandon-with-properties")
async def test_abandon(bus):
    sender, receiver = bus.sender("plain"), bus.receiver("plain")
    await sender.send_messages(ServiceBusMessage("again", application_properties={"kept": "yes"}))
    first = await take_one(receiver)
    first_token = first.lock_token
    await receiver.abandon_message(first)
    second = await take_one(receiver)
    assert (first.delivery_count, second.delivery_count) == (0, 1)
    assert (first.sequence_number, second.sequence_number) == (1, 1)
    assert first.enqueued_time_utc == second.enqueued_time_utc
    assert second.lock_token != first_token
    assert second.application_properties == {b"kept": b"yes"}
    await receiver.abandon_message(second)
    third = await take_one(receiver)
    assert third.delivery_count == 2
    await receiver.complete_message(third)
    await assert_empty(receiver)


@pytest.mark.step("dead-letter-with-reason")
async def test_dead_letter_with_reason(bus):
    sender, receiver, dead_letters = bus.sender("plain"), bus.receiver("plain"), bus.dead_letters("plain")
    sent = ServiceBusMessage("bad", message_id="m-1", application_properties={"kept": 1})
    await sender.send_messages([sent, ServiceBusMessage("worse")])
    bad, worse = await take(receiver, 2)
    await receiver.dead_letter_message(bad, reason="NotFood", error_description="“Bücher” are not eaten")
    await receiver.dead_letter_message(worse)
    await assert_empty(receiver)
    dead, deader = await take(dead_letters, 2)
    assert bodies([dead, deader]) == [b"bad", b"worse"]
    assert dead.dead_letter_reason == "NotFood"
    assert dead.dead_letter_error_description == "“Bücher” are not eaten"
    assert dead.application_properties == {
        b"kept": 1,
        b"DeadLetterReason": b"NotFood",
        b"DeadLetterErrorDescription": "“Bücher” are not eaten".encode(),
    }
    assert dead.message_id == "m-1"
    assert dead.sequence_number == 1
    assert dead.enqueued_time_utc == bad.enqueued_time_utc
    # It did not come from another entity's dead letters.
    assert dead.dead_letter_source is None
    assert deader.dead_letter_reason is None
    assert deader.dead_letter_error_description is None


@pytest.mark.step("dead-letter-queue")
async def test_dead_letter_queue(bus):
    sender, receiver, dead_letters = bus.sender("one-try"), bus.receiver("one-try"), bus.dead_letters("one-try")
    await sender.send_messages(ServiceBusMessage("once"))
    await receiver.abandon_message(await take_one(receiver))
    dead = await take_one(dead_letters)
    assert body(dead) == b"once"
    assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"
    assert dead.dead_letter_error_description == "Message could not be consumed after 1 delivery attempts."
    await assert_empty(receiver)
    # Dead letters are never given up: they can be abandoned for ever, and then sent on.
    for _ in range(3):
        await dead_letters.abandon_message(dead)
        dead = await take_one(dead_letters)
    assert bodies(await everything_in(dead_letters)) == [b"once"]
    await sender.send_messages(ServiceBusMessage(body(dead)))
    await dead_letters.complete_message(dead)
    await assert_empty(dead_letters)
    again = await take_one(receiver)
    assert (body(again), again.delivery_count, again.sequence_number) == (b"once", 0, 2)
    await receiver.complete_message(again)


@pytest.mark.step("dead-letter-queue")
async def test_dead_letter_queue_of_a_subscription(bus):
    await bus.topic_sender("fan").send_messages(ServiceBusMessage("news"))
    receiver, dead_letters = bus.receiver("fan/s1"), bus.dead_letters("fan/s1")
    await receiver.dead_letter_message(await take_one(receiver), reason="Old")
    dead = await take_one(dead_letters)
    assert (body(dead), dead.dead_letter_reason) == (b"news", "Old")
    await dead_letters.complete_message(dead)
    await assert_empty(receiver)
    await assert_empty(dead_letters)
    assert bodies(await everything_in(bus.receiver("fan/s2"))) == [b"news"]


@pytest.mark.step("defer")
async def test_defer(bus):
    sender, receiver = bus.sender("deferred"), bus.receiver("deferred")
    await sender.send_messages([ServiceBusMessage("later"), ServiceBusMessage("too late"), ServiceBusMessage("now")])
    later, too_late, at_once = await take(receiver, 3)
    await receiver.defer_message(later)
    await receiver.defer_message(too_late)
    await receiver.complete_message(at_once)
    assert [(body(message), message.state) for message in await everything_in(receiver)] == [
        (b"later", ServiceBusMessageState.DEFERRED),
        (b"too late", ServiceBusMessageState.DEFERRED),
    ]
    with pytest.raises(MessageNotFoundError):
        await receiver.receive_deferred_messages([1, 99])
    first, second = await receiver.receive_deferred_messages([1, 2])
    assert bodies([first, second]) == [b"later", b"too late"]
    assert [first.sequence_number, second.sequence_number] == [1, 2]
    assert [first.delivery_count, second.delivery_count] == [1, 1]
    assert isinstance(first.lock_token, uuid.UUID)
    assert now() + MINUTE - SLACK < first.locked_until_utc <= now() + MINUTE
    await receiver.complete_message(first)
    await receiver.dead_letter_message(second, reason="TooLate", error_description="after closing time")
    await assert_empty(receiver)
    dead = await take_one(bus.dead_letters("deferred"))
    assert body(dead) == b"too late"
    assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("TooLate", "after closing time")


@pytest.mark.step("defer")
async def test_a_deferred_message_that_is_abandoned_stays_deferred(bus):
    sender, receiver = bus.sender("deferred"), bus.receiver("deferred")
    await sender.send_messages(ServiceBusMessage("later"))
    await receiver.defer_message(await take_one(receiver))
    [again] = await receiver.receive_deferred_messages(1)
    await receiver.abandon_message(again)
    [peeked] = await everything_in(receiver)
    assert peeked.state == ServiceBusMessageState.DEFERRED
    taken = bus.receiver("deferred", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    [message] = await taken.receive_deferred_messages(1)
    assert body(message) == b"later"
    await assert_empty(receiver)


@pytest.mark.step("schedule")
async def test_schedule(bus):
    sender, receiver = bus.sender("scheduled"), bus.receiver("scheduled")
    due = now() + timedelta(seconds=2)
    assert await sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], due) == [1, 2]
    # Sent like any other, but with a time.
    await sender.send_messages(ServiceBusMessage("c", scheduled_enqueue_time_utc=due))
    peeked = await everything_in(receiver)
    assert bodies(peeked) == [b"a", b"b", b"c"]
    assert {message.state for message in peeked} == {ServiceBusMessageState.SCHEDULED}
    assert {message.scheduled_enqueue_time_utc for message in peeked} == {due}
    messages = await take(receiver, 3)
    assert now() >= due
    assert sorted(bodies(messages)) == [b"a", b"b", b"c"]
    assert {message.state for message in messages} == {ServiceBusMessageState.ACTIVE}
    for message in messages:
        assert message.scheduled_enqueue_time_utc == due
        assert due <= message.enqueued_time_utc <= now()
        await receiver.complete_message(message)
    await assert_empty(receiver)


@pytest.mark.step("cancel-scheduled")
async def test_cancel_scheduled(bus):
    sender, receiver = bus.sender("scheduled"), bus.receiver("scheduled")
    due = now() + timedelta(hours=1)
    numbers = await sender.schedule_messages([ServiceBusMessage(f"s{number}") for number in range(4)], due)
    assert numbers == [1, 2, 3, 4]
    await sender.cancel_scheduled_messages(numbers[1])
    assert bodies(await everything_in(receiver)) == [b"s0", b"s2", b"s3"]
    with pytest.raises(MessageNotFoundError):
        await sender.cancel_scheduled_messages(numbers[1])
    await sender.cancel_scheduled_messages([numbers[0], numbers[2], numbers[3]])
    await assert_empty(receiver)


@pytest.mark.step("renew-lock")
async def test_renew_lock(bus):
    sender, receiver, other = bus.sender("short-lock"), bus.receiver("short-lock"), bus.receiver("short-lock")
    await open_all(sender, receiver, other)
    await sender.send_messages(ServiceBusMessage("slow"))
    message = await take_one(receiver)
    first_end = message.locked_until_utc
    assert now() < first_end <= now() + timedelta(seconds=5)
    await until(first_end - timedelta(seconds=2))
    renewed = await receiver.renew_message_lock(message)
    assert message.locked_until_utc == renewed
    assert first_end + timedelta(seconds=1) <= renewed <= now() + timedelta(seconds=5)
    # Past the first end it is still this receiver's.
    assert await other.receive_messages(max_wait_time=(first_end - now()).total_seconds() + 0.5) == []
    await receiver.complete_message(message)
    await assert_empty(receiver)


@pytest.mark.step("renew-lock")
async def test_lock_renewer(bus):
    """The SDK's own: it renews as long as the message is not settled."""
    sender, other = bus.sender("short-lock"), bus.receiver("short-lock")
    receiver = bus.receiver("short-lock", auto_lock_renewer=bus.lock_renewer())
    await open_all(sender, receiver, other)
    await sender.send_messages(ServiceBusMessage("slow"))
    message = await take_one(receiver)
    first_end = message.locked_until_utc
    await until(first_end + timedelta(seconds=1))
    assert await other.receive_messages(max_wait_time=0.5) == []
    assert message.locked_until_utc > first_end
    await receiver.complete_message(message)
    await assert_empty(other)


@pytest.mark.step("lock-lost")
async def test_lock_lost(bus):
    sender, receiver, other = bus.sender("short-lock"), bus.receiver("short-lock"), bus.receiver("short-lock")
    await sender.send_messages(ServiceBusMessage("slow"))
    lost = await take_one(receiver)
    redelivered = await take_one(other)
    assert now() >= lost.locked_until_utc
    assert body(redelivered) == b"slow"
    assert (lost.delivery_count, redelivered.delivery_count) == (0, 1)
    assert redelivered.lock_token != lost.lock_token
    with pytest.raises(MessageLockLostError):
        await receiver.complete_message(lost)
    # That was the client, which looks at the clock. Now the service is asked.
    lost._expiry = now() + MINUTE
    with pytest.raises(MessageLockLostError):
        await receiver.complete_message(lost)
    with pytest.raises(MessageLockLostError):
        await receiver.abandon_message(lost)
    with pytest.raises(MessageLockLostError):
        await receiver.dead_letter_message(lost, reason="TooSlow")
    with pytest.raises(MessageLockLostError):
        await receiver.renew_message_lock(lost)
    # None of that touched the other's delivery.
    await other.complete_message(redelivered)
    await assert_empty(receiver)
    await assert_empty(bus.dead_letters("short-lock"))


@pytest.mark.step("receive-and-delete")
async def test_receive_and_delete(bus):
    sender = bus.sender("plain")
    receiver = bus.receiver("plain", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    await sender.send_messages([ServiceBusMessage("one"), ServiceBusMessage("two"), ServiceBusMessage("three")])
    messages = await take(receiver, 2)
    assert bodies(messages) == [b"one", b"two"]
    assert [message.delivery_count for message in messages] == [0, 0]
    assert bodies(await everything_in(receiver)) == [b"three"]
    with pytest.raises(ValueError, match="not supported in 'RECEIVE_AND_DELETE' receive mode"):
        await receiver.complete_message(messages[0])
    assert bodies(await take(receiver)) == [b"three"]
    await assert_empty(receiver)
