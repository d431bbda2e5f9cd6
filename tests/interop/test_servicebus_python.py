"""The Service Bus emulator with `azure-servicebus`, unmodified, over AMQP: the scripted steps, each with both clients.

Every test has an emulator of its own, so that sequence numbers begin at 1 and whatever is left is seen. That something
is *not* there is shown by peeking at all that is, wherever the service has an answer at once.
"""

import asyncio
import itertools
import json
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
)
from azure.servicebus._pyamqp.utils import amqp_long_value
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from servicebus_emulator import ENTITIES
from servicebus_results import STEPS, Client
from servicebus_sdk import (
    VERSION,
    Bus,
    assert_empty,
    bodies,
    body,
    everything_in,
    take,
    take_one,
)

NOT_IN_THE_SDK = {
    "transactions": "azure-servicebus has no transactions",
    "rules": "azure-servicebus knows rules through its administration client only",
}
ADMINISTRATION = (
    "the administration clients have `https://` built in, whatever the connection string says; "
    "a transport, as azure-core lets one be given, sends their requests over plain HTTP"
)
NOTES = {
    "abandon-with-properties": "abandon_message takes no properties to change; the rest of the step is shown",
    "admin-entities": ADMINISTRATION,
    "admin-rules": ADMINISTRATION,
}
COLUMNS = {
    "python-sync": Client("azure-servicebus", VERSION, STEPS, NOT_IN_THE_SDK, NOTES),
    "python-async": Client("azure-servicebus.aio", VERSION, STEPS, NOT_IN_THE_SDK, NOTES),
}

MINUTE = timedelta(minutes=1)
# The entities' own, as none of them names one.
TIME_TO_LIVE = timedelta(hours=1)
# What is measured on two sides of a socket of a loaded machine.
SLACK = timedelta(seconds=5)
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture(params=list(COLUMNS))
def sdk(request):
    return request.param


@pytest.fixture
def bus(sdk, servicebus, runner):
    bus = Bus(sdk, servicebus)
    yield bus
    runner.run(bus.close())


def now() -> datetime:
    """As exact as AMQP, whose timestamps are whole milliseconds."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


async def until(time: datetime):
    """Waits for something that the service does at a time and no client is told of."""
    await asyncio.sleep(max(0.0, (time - now()).total_seconds()))


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


@pytest.mark.step("topic-fan-out")
async def test_topic_fan_out(bus):
    sender, s1, s2 = bus.topic_sender("fan"), bus.receiver("fan/s1"), bus.receiver("fan/s2")
    await sender.send_messages([ServiceBusMessage("fan 1", message_id="m-1"), ServiceBusMessage("fan 2")])
    first, second = await take(s1, 2), await take(s2, 2)
    assert bodies(first) == bodies(second) == [b"fan 1", b"fan 2"]
    assert first[0].message_id == second[0].message_id == "m-1"
    assert [message.sequence_number for message in first + second] == [1, 2, 1, 2]
    # Each copy is settled by itself.
    for message in first:
        await s1.complete_message(message)
    await assert_empty(s1)
    await s2.abandon_message(second[0])
    assert bodies(await everything_in(s2)) == [b"fan 1", b"fan 2"]


@pytest.mark.step("sql-filter-and-action")
async def test_sql_filter_and_action(bus):
    sender, sql, everything = bus.topic_sender("filtered"), bus.receiver("filtered/sql"), bus.receiver("filtered/all")
    orders = [("red", 11), ("blue", 12), ("red", 10), ("green", 13), (None, 14)]
    await sender.send_messages(
        [
            ServiceBusMessage(
                f"{colour} {quantity}",
                application_properties={"quantity": quantity} | ({"colour": colour} if colour else {}),
            )
            for colour, quantity in orders
        ]
    )
    first, second = await take(sql, 2)
    assert bodies([first, second]) == [b"red 11", b"blue 12"]
    # SET priority = 'high'; SET doubled = quantity * 2; REMOVE colour
    assert first.application_properties == {b"quantity": 11, b"priority": b"high", b"doubled": 22}
    assert second.application_properties == {b"quantity": 12, b"priority": b"high", b"doubled": 24}
    assert len(await everything_in(sql)) == 2
    # Only that subscription's copies were changed.
    untouched = await take(everything, 5)
    assert untouched[0].application_properties == {b"quantity": 11, b"colour": b"red"}
    await assert_empty(bus.receiver("filtered/none"))


@pytest.mark.step("correlation-filter")
async def test_correlation_filter(bus):
    sender, receiver = bus.topic_sender("filtered"), bus.receiver("filtered/correlation")
    for text, correlation_id, colour in [
        ("both", "important", "red"),
        ("other colour", "important", "blue"),
        ("other id", "trivial", "red"),
        ("other case", "Important", "red"),
    ]:
        await sender.send_messages(
            ServiceBusMessage(text, correlation_id=correlation_id, application_properties={"colour": colour})
        )
    await sender.send_messages(ServiceBusMessage("neither"))
    # All have arrived: the one that takes everything has them.
    assert len(await everything_in(bus.receiver("filtered/all"))) == 5
    assert bodies(await everything_in(receiver)) == [b"both"]


@pytest.mark.step("forwarding")
async def test_forwarding(bus):
    receiver = bus.receiver("forwards-to")
    await bus.sender("forwards-to").send_messages(ServiceBusMessage("direct"))
    await bus.sender("forwards-from").send_messages(ServiceBusMessage("forwarded", message_id="m-1"))
    await bus.topic_sender("forwarding-topic").send_messages(ServiceBusMessage("from a topic"))
    direct, forwarded, from_a_topic = await take(receiver, 3)
    assert bodies([direct, forwarded, from_a_topic]) == [b"direct", b"forwarded", b"from a topic"]
    assert [message.sequence_number for message in (direct, forwarded, from_a_topic)] == [1, 2, 3]
    # The number that it had where it was sent to.
    assert [message.enqueued_sequence_number for message in (direct, forwarded, from_a_topic)] == [1, 1, 1]
    assert forwarded.message_id == "m-1"
    assert forwarded.dead_letter_source is None


@pytest.mark.step("forwarding")
async def test_forwarding_of_dead_letters(bus):
    source, target = bus.receiver("forwards-dead"), bus.receiver("dead-letters")
    await bus.sender("forwards-dead").send_messages([ServiceBusMessage("abandoned"), ServiceBusMessage("rejected")])
    abandoned, rejected = await take(source, 2)
    await source.abandon_message(abandoned)
    await source.dead_letter_message(rejected, reason="NotFood", error_description="a book")
    first, second = await take(target, 2)
    assert bodies([first, second]) == [b"abandoned", b"rejected"]
    assert [first.dead_letter_source, second.dead_letter_source] == ["forwards-dead", "forwards-dead"]
    assert first.dead_letter_reason == "MaxDeliveryCountExceeded"
    assert (second.dead_letter_reason, second.dead_letter_error_description) == ("NotFood", "a book")
    await assert_empty(source)
    await assert_empty(bus.dead_letters("forwards-dead"))


@pytest.mark.step("duplicate-detection")
async def test_duplicate_detection(bus):
    sender, receiver = bus.sender("dedup"), bus.receiver("dedup")
    await sender.send_messages(ServiceBusMessage("first", message_id="m-1"))
    await sender.send_messages(ServiceBusMessage("again", message_id="m-1"))
    await sender.send_messages(
        [ServiceBusMessage("in a batch", message_id="m-1"), ServiceBusMessage("other", message_id="m-2")]
    )
    assert bodies(await everything_in(receiver)) == [b"first", b"other"]
    # Its being taken does not make it new.
    await receiver.complete_message(await take_one(receiver))
    await sender.send_messages(ServiceBusMessage("late", message_id="m-1"))
    assert bodies(await everything_in(receiver)) == [b"other"]


@pytest.mark.step("time-to-live")
async def test_time_to_live(bus):
    sender, receiver, dead_letters = bus.sender("expiring"), bus.receiver("expiring"), bus.dead_letters("expiring")
    sent = ServiceBusMessage("milk", time_to_live=timedelta(seconds=1), application_properties={"vendor": "dairy"})
    await sender.send_messages([sent, ServiceBusMessage("honey")])
    dead = await take_one(dead_letters)
    assert body(dead) == b"milk"
    assert now() >= dead.enqueued_time_utc + timedelta(seconds=1)
    assert dead.dead_letter_reason == "TTLExpiredException"
    assert dead.dead_letter_error_description == "The message expired and was dead lettered."
    assert dead.application_properties[b"vendor"] == b"dairy"
    assert dead.sequence_number == 1
    assert bodies(await everything_in(receiver)) == [b"honey"]


@pytest.mark.step("time-to-live")
async def test_time_to_live_without_dead_lettering(bus):
    sender, receiver = bus.sender("vanishing"), bus.receiver("vanishing")
    sent = now()
    await sender.send_messages(
        [ServiceBusMessage("milk", time_to_live=timedelta(seconds=1)), ServiceBusMessage("honey")]
    )
    await until(sent + timedelta(seconds=1.5))
    assert bodies(await take(receiver)) == [b"honey"]
    assert bodies(await everything_in(receiver)) == [b"honey"]
    await assert_empty(bus.dead_letters("vanishing"))


@pytest.mark.step("session-named")
async def test_session_named(bus):
    sender = bus.sender("sessions")
    await sender.send_messages(
        [
            ServiceBusMessage(f"{session} {number}", session_id=session)
            for number in range(2)
            for session in ("a", "b")
        ]
    )
    before = now()
    receiver = bus.receiver("sessions", session_id="a")
    messages = await take(receiver, 2)
    assert receiver.session.session_id == "a"
    assert before + MINUTE <= receiver.session.locked_until_utc <= now() + MINUTE
    assert bodies(messages) == [b"a 0", b"a 1"]
    assert [message.session_id for message in messages] == ["a", "a"]
    assert [message.sequence_number for message in messages] == [1, 3]
    # The lock is the session's.
    assert [message.locked_until_utc for message in messages] == [None, None]
    with pytest.raises(TypeError, match="renew the session lock instead"):
        await receiver.renew_message_lock(messages[0])
    # Nobody else gets it meanwhile, whatever else there is.
    with pytest.raises(SessionCannotBeLockedError):
        await take(bus.receiver("sessions", session_id="a"))
    assert bodies(await receiver.peek_messages(10, sequence_number=1)) == [b"a 0", b"a 1"]
    await receiver.complete_message(messages[0])
    await receiver.abandon_message(messages[1])
    again = await take_one(receiver)
    assert (body(again), again.delivery_count) == (b"a 1", 1)
    await receiver.defer_message(again)
    [deferred] = await receiver.receive_deferred_messages(again.sequence_number)
    assert (body(deferred), deferred.session_id) == (b"a 1", "a")
    await receiver.dead_letter_message(deferred, reason="NotFood")
    await assert_empty(receiver)
    # Dead letters are not in sessions any more.
    dead = await take_one(bus.dead_letters("sessions"))
    assert (body(dead), dead.session_id, dead.dead_letter_reason) == (b"a 1", "a", "NotFood")


@pytest.mark.step("session-named")
async def test_session_of_a_subscription(bus):
    await bus.topic_sender("sessions-topic").send_messages(ServiceBusMessage("hello", session_id="a"))
    receiver = bus.receiver("sessions-topic/sessions", session_id="a")
    message = await take_one(receiver)
    assert (body(message), message.session_id) == (b"hello", "a")
    await receiver.complete_message(message)
    await assert_empty(receiver)


@pytest.mark.step("session-named")
async def test_what_does_not_fit_a_session_queue_is_refused(bus):
    with pytest.raises(ServiceBusError):
        await bus.sender("sessions").send_messages(ServiceBusMessage("without a session"))
    with pytest.raises(ServiceBusError):
        await take(bus.receiver("sessions"))
    with pytest.raises(ServiceBusError):
        await take(bus.receiver("plain", session_id="a"))
    await assert_empty(bus.receiver("sessions", session_id="a"))


@pytest.mark.step("session-next")
async def test_session_next(bus):
    sender = bus.sender("sessions")
    await sender.send_messages([ServiceBusMessage(session, session_id=session) for session in ("a", "b")])
    receivers = [bus.receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=60) for _ in range(2)]
    messages = [await take_one(receiver) for receiver in receivers]
    assert [receiver.session.session_id for receiver in receivers] == ["a", "b"]
    assert bodies(messages) == [b"a", b"b"]
    # There is no third.
    impatient = bus.receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)
    with pytest.raises(OperationTimeoutError):
        await take(impatient)
    # One who waits gets the next that comes.
    patient = bus.receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=60)
    waiting = asyncio.create_task(take_one(patient))
    await sender.send_messages(ServiceBusMessage("c", session_id="c"))
    assert body(await waiting) == b"c"
    assert patient.session.session_id == "c"
    # One that is closed is available again, and that was no delivery.
    await receivers[0].close()
    next_one = bus.receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=60)
    again = await take_one(next_one)
    assert (next_one.session.session_id, again.delivery_count) == ("a", 0)


@pytest.mark.step("session-state")
async def test_session_state(bus):
    await bus.sender("sessions").send_messages(ServiceBusMessage("hello", session_id="a"))
    receiver = bus.receiver("sessions", session_id="a")
    message = await take_one(receiver)
    assert await receiver.session.get_state() is None
    await receiver.session.set_state("schön")
    assert await receiver.session.get_state() == "schön".encode()
    await receiver.session.set_state(b"\x00\xff")
    await receiver.complete_message(message)
    await receiver.close()
    # It stays when the session is empty and nobody has it.
    before = now()
    again = bus.receiver("sessions", session_id="a")
    assert await again.receive_messages(max_wait_time=0.2) == []
    assert await again.session.get_state() == b"\x00\xff"
    assert [session async for session in bus.client.list_queue_sessions("sessions")] == ["a"]
    assert [session async for session in bus.client.list_queue_sessions("sessions", state_updated_after=before)] == []
    await again.session.set_state(b"new")
    assert [session async for session in bus.client.list_queue_sessions("sessions", state_updated_after=before)] == [
        "a"
    ]
    await again.session.set_state(None)
    assert await again.session.get_state() is None
    assert [session async for session in bus.client.list_queue_sessions("sessions")] == []


@pytest.mark.step("session-lock")
async def test_session_lock(bus):
    await bus.sender("short-sessions").send_messages(ServiceBusMessage("slow", session_id="a"))
    receiver = bus.receiver("short-sessions", session_id="a")
    message = await take_one(receiver)
    first_end = receiver.session.locked_until_utc
    assert now() < first_end <= now() + timedelta(seconds=5)
    await until(first_end - timedelta(seconds=3))
    renewed = await receiver.session.renew_lock()
    assert receiver.session.locked_until_utc == renewed
    assert first_end + timedelta(seconds=1) <= renewed <= now() + timedelta(seconds=5)
    await until(first_end + timedelta(seconds=0.3))
    with pytest.raises(SessionCannotBeLockedError):
        await take(bus.receiver("short-sessions", session_id="a"))
    # Then it is left alone until it is over.
    other = bus.receiver("short-sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=60)
    redelivered = await take_one(other)
    assert now() >= renewed
    assert other.session.session_id == "a"
    assert (message.delivery_count, redelivered.delivery_count) == (0, 1)
    with pytest.raises(SessionLockLostError):
        await receiver.complete_message(message)
    await other.complete_message(redelivered)
    await assert_empty(other)


@pytest.mark.step("session-lock")
async def test_session_lock_lost_says_the_service(bus):
    """As in test_session_lock, but the client's own clock is not asked first."""
    await bus.sender("short-sessions").send_messages(ServiceBusMessage("slow", session_id="a"))
    receiver = bus.receiver("short-sessions", session_id="a")
    message = await take_one(receiver)
    other = bus.receiver("short-sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=60)
    redelivered = await take_one(other)
    session = receiver._inner.session if bus.is_sync else receiver.session
    session._locked_until_utc = now() + MINUTE
    with pytest.raises(SessionLockLostError):
        await receiver.complete_message(message)
    await other.complete_message(redelivered)
    await assert_empty(other)


@pytest.mark.step("large-message")
async def test_large_message(bus):
    """Several frames each way."""
    sender, receiver = bus.sender("large"), bus.receiver("large")
    sent = [bytes(index * 7 % 251 for index in range(200 * 1024)), bytes(63_000), bytes(65_536)]
    for content in sent:
        await sender.send_messages(ServiceBusMessage(content, application_properties={"length": len(content)}))
    messages = await take(receiver, len(sent))
    assert bodies(messages) == sent
    assert [message.application_properties for message in messages] == [{b"length": len(content)} for content in sent]
    peeked = await everything_in(receiver)
    assert bodies(peeked) == sent
    for message in messages:
        await receiver.complete_message(message)
    await assert_empty(receiver)


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


@pytest.mark.step("types-round-trip")
async def test_property_types(bus):
    sender, receiver = bus.sender("types"), bus.receiver("types")
    time = now()
    identity = uuid.UUID("12345678-9abc-4def-8123-456789abcdef")
    properties = {
        "string": "Größe",
        "empty string": "",
        "int": 42,
        "small int": -128,
        "largest int": 2**31 - 1,
        # Python's int is an int on the wire; there is no public name for a long.
        "long": amqp_long_value(2**40),
        "small long": amqp_long_value(-1),
        "smallest long": amqp_long_value(-(2**63)),
        "double": 1.25,
        "infinity": float("inf"),
        "true": True,
        "false": False,
        "null": None,
        "uuid": identity,
        "time": time,
        # The SDK sends bytes as a string.
        "bytes": b"abc",
    }
    await sender.send_messages(ServiceBusMessage("typed", application_properties=properties))
    message = await take_one(receiver)
    expected = {
        b"string": "Größe".encode(),
        b"empty string": b"",
        b"int": 42,
        b"small int": -128,
        b"largest int": 2**31 - 1,
        b"long": 2**40,
        b"small long": -1,
        b"smallest long": -(2**63),
        b"double": 1.25,
        b"infinity": float("inf"),
        b"true": True,
        b"false": False,
        b"null": None,
        b"uuid": identity,
        b"time": int(time.timestamp() * 1000 + 0.5),
        b"bytes": b"abc",
    }
    assert message.application_properties == expected
    assert {name: type(value) for name, value in message.application_properties.items()} == {
        name: type(value) for name, value in expected.items()
    }
    [peeked] = await everything_in(receiver)
    assert peeked.application_properties == expected


@pytest.mark.step("types-round-trip")
async def test_body_types(bus):
    sender, receiver = bus.sender("types"), bus.receiver("types")
    sequence = [[1, "zwei", None, True], [b"bytes", [3.5]]]
    sent = {
        "text": ServiceBusMessage("Größe"),
        "bytes": ServiceBusMessage(b"\x00\xff\xfe"),
        "sections": AmqpAnnotatedMessage(data_body=[b"one", b"two", b""]),
        "sequence": AmqpAnnotatedMessage(sequence_body=sequence),
        "value": AmqpAnnotatedMessage(value_body={"number": 7, "list": [1.5, "x"], "flag": False}),
        "string value": AmqpAnnotatedMessage(value_body="Größe"),
        "time value": AmqpAnnotatedMessage(value_body=datetime(2026, 11, 22, 19, 40, tzinfo=UTC)),
        # The SDK sends no body section at all.
        "nothing": ServiceBusMessage(None),
    }
    for message in sent.values():
        await sender.send_messages(message)

    def what_came(message):
        if message.body_type == AmqpMessageBodyType.VALUE:
            return message.body_type, message.body
        return message.body_type, list(message.body)

    expected = [
        (AmqpMessageBodyType.DATA, ["Größe".encode()]),
        (AmqpMessageBodyType.DATA, [b"\x00\xff\xfe"]),
        (AmqpMessageBodyType.DATA, [b"one", b"two", b""]),
        (AmqpMessageBodyType.SEQUENCE, [[1, b"zwei", None, True], [b"bytes", [3.5]]]),
        (AmqpMessageBodyType.VALUE, {b"number": 7, b"list": [1.5, b"x"], b"flag": False}),
        (AmqpMessageBodyType.VALUE, "Größe".encode()),
        (AmqpMessageBodyType.VALUE, int(datetime(2026, 11, 22, 19, 40, tzinfo=UTC).timestamp() * 1000)),
        (AmqpMessageBodyType.VALUE, None),
    ]
    assert [what_came(message) for message in await take(receiver, len(sent))] == expected
    assert [what_came(message) for message in await everything_in(receiver)] == expected


@pytest.mark.step("types-round-trip")
async def test_system_properties(bus):
    """The sections that `ServiceBusMessage` has no names for."""
    sender, receiver = bus.sender("types"), bus.receiver("types")
    sent = AmqpAnnotatedMessage(
        data_body=b"all",
        header={"priority": 9, "durable": True},
        properties={
            "message_id": "m-1",
            "user_id": b"user",
            "content_encoding": "gzip",
            "group_id": "g",
            "group_sequence": 7,
        },
        annotations={"x-opt-vendor": "bakery"},
        application_properties={"a": 1},
    )
    await sender.send_messages(sent)
    message = await take_one(receiver)
    raw = message.raw_amqp_message
    assert message.session_id == "g"
    assert raw.properties.message_id == b"m-1"
    assert raw.application_properties == {b"a": 1}
    assert raw.annotations[b"x-opt-sequence-number"] == 1
    assert raw.annotations[b"x-opt-enqueued-time"] == int(message.enqueued_time_utc.timestamp() * 1000 + 0.5)
    assert raw.annotations[b"x-opt-locked-until"] == int(message.locked_until_utc.timestamp() * 1000 + 0.5)


@pytest.mark.step("rest-to-amqp")
async def test_rest_to_amqp(bus):
    answer = bus.emulator.rest(
        "POST",
        "rest/messages",
        "Käse".encode(),
        Content_Type="text/plain; charset=utf-8",
        BrokerProperties=json.dumps(
            {
                "MessageId": "m-1",
                "Label": "order.placed",
                "CorrelationId": "c-1",
                "To": "kitchen",
                "ReplyTo": "till",
                "TimeToLive": 90,
            }
        ),
        vendor='"bakery"',
        quantity="12",
        weight="1.5",
        fresh="true",
        baked='"Sun, 22 Nov 2026 19:40:00 GMT"',
    )
    assert answer.status == 201
    message = await take_one(bus.receiver("rest"))
    assert message.body_type == AmqpMessageBodyType.DATA
    assert body(message) == "Käse".encode()
    assert message.message_id == "m-1"
    assert message.subject == "order.placed"
    assert message.correlation_id == "c-1"
    assert message.to == "kitchen"
    assert message.reply_to == "till"
    assert message.content_type == "text/plain; charset=utf-8"
    assert message.time_to_live == timedelta(seconds=90)
    properties = {name.lower(): value for name, value in message.application_properties.items()}
    assert properties == {
        b"vendor": b"bakery",
        b"quantity": 12,
        b"weight": 1.5,
        b"fresh": True,
        b"baked": int(datetime(2026, 11, 22, 19, 40, tzinfo=UTC).timestamp() * 1000),
    }
    assert type(properties[b"fresh"]) is bool
    assert type(properties[b"weight"]) is float


@pytest.mark.step("rest-to-amqp")
async def test_rest_batch_to_amqp(bus):
    batch = [
        {"Body": "eins", "BrokerProperties": {"MessageId": "m-1", "Label": "l"}, "UserProperties": {"number": 1}},
        {"Body": "zwei", "UserProperties": {"Vendor": "bakery"}},
    ]
    answer = bus.emulator.rest(
        "POST",
        "rest/messages",
        json.dumps(batch).encode(),
        Content_Type="application/vnd.microsoft.servicebus.json",
    )
    assert answer.status == 201
    first, second = await take(bus.receiver("rest"), 2)
    assert bodies([first, second]) == [b"eins", b"zwei"]
    assert (first.message_id, first.subject) == ("m-1", "l")
    assert first.application_properties == {b"number": 1}
    assert second.application_properties == {b"Vendor": b"bakery"}


@pytest.mark.step("amqp-to-rest")
async def test_amqp_to_rest(bus):
    time = datetime(2026, 11, 22, 19, 40, tzinfo=UTC)
    await bus.sender("rest").send_messages(
        ServiceBusMessage(
            "Käse",
            message_id="m-1",
            subject="order.placed",
            correlation_id="c-1",
            content_type="text/plain; charset=utf-8",
            time_to_live=timedelta(seconds=90),
            application_properties={
                "vendor": "bakery",
                "quantity": 12,
                "total": amqp_long_value(2**40),
                "weight": 1.5,
                "fresh": True,
                "baked": time,
            },
        )
    )
    answer = await asyncio.to_thread(bus.emulator.rest, "POST", "rest/messages/head?timeout=10")
    assert answer.status == 201
    assert answer.body == "Käse".encode()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    broker_properties = json.loads(answer.headers["BrokerProperties"])
    assert {
        name: broker_properties[name]
        for name in ("MessageId", "Label", "CorrelationId", "TimeToLive", "SequenceNumber", "DeliveryCount", "State")
    } == {
        "MessageId": "m-1",
        "Label": "order.placed",
        "CorrelationId": "c-1",
        "TimeToLive": 90,
        "SequenceNumber": 1,
        "DeliveryCount": 1,
        "State": "Active",
    }
    assert answer.headers["vendor"] == '"bakery"'
    assert answer.headers["quantity"] == "12"
    assert answer.headers["total"] == str(2**40)
    assert answer.headers["weight"] == "1.5"
    assert answer.headers["fresh"] == "true"
    assert parsedate_to_datetime(answer.headers["baked"].strip('"')) == time
    # A lock that REST took holds for AMQP, and what REST completes is gone.
    [peeked] = await everything_in(bus.receiver("rest"))
    assert peeked.sequence_number == 1
    answer = bus.emulator.rest("DELETE", f"rest/messages/1/{broker_properties['LockToken']}")
    assert answer.status == 200
    await assert_empty(bus.receiver("rest"))


@pytest.mark.step("amqp-to-rest")
async def test_a_lock_is_one_lock_for_both(bus):
    """AMQP receives, REST completes with the lock token, AMQP has lost it."""
    await bus.sender("rest").send_messages(ServiceBusMessage("shared"))
    receiver = bus.receiver("rest")
    message = await take_one(receiver)
    answer = bus.emulator.rest("DELETE", f"rest/messages/1/{message.lock_token}")
    assert answer.status == 200
    with pytest.raises(MessageLockLostError):
        await receiver.complete_message(message)
    await assert_empty(receiver)


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


@pytest.mark.step("admin-entities")
async def test_admin_entities(bus):
    admin = bus.administration()
    namespace = await admin.get_namespace_properties()
    assert namespace.name == "sbemulatorns"
    queues = {queue.name: queue async for queue in admin.list_queues()}
    declared = json.loads(ENTITIES.read_text())["UserConfig"]["Namespaces"][0]
    assert sorted(queues) == sorted(queue["Name"] for queue in declared["Queues"])
    assert queues["short-lock"].lock_duration == timedelta(seconds=5)
    assert queues["one-try"].max_delivery_count == 1
    assert queues["sessions"].requires_session is True
    assert queues["plain"].requires_session is False
    assert queues["dedup"].requires_duplicate_detection is True
    assert queues["dedup"].duplicate_detection_history_time_window == timedelta(seconds=20)
    assert queues["expiring"].dead_lettering_on_message_expiration is True
    assert queues["forwards-from"].forward_to.rpartition("/")[2] == "forwards-to"
    assert queues["forwards-dead"].forward_dead_lettered_messages_to.rpartition("/")[2] == "dead-letters"
    assert queues["plain"].default_message_time_to_live == TIME_TO_LIVE
    topics = sorted([topic.name async for topic in admin.list_topics()])
    assert topics == sorted(topic["Name"] for topic in declared["Topics"])
    assert sorted([it.name async for it in admin.list_subscriptions("filtered")]) == [
        "all",
        "correlation",
        "none",
        "sql",
    ]
    # Pages are put together.
    assert len([queue async for queue in admin.list_queues(max_page_size=7)]) == len(queues)

    queue = await admin.get_queue("plain")
    assert (queue.name, queue.lock_duration, queue.max_delivery_count) == ("plain", MINUTE, 10)
    with pytest.raises(ResourceNotFoundError):
        await admin.get_queue("nowhere")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_queue("fan")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_subscription("fan", "nobody")


@pytest.mark.step("admin-entities")
async def test_admin_creates_updates_and_deletes(bus):
    admin = bus.administration()
    created = await admin.create_queue(
        "new-queue",
        lock_duration=timedelta(seconds=30),
        max_delivery_count=4,
        requires_session=True,
        default_message_time_to_live=timedelta(hours=2),
        dead_lettering_on_message_expiration=True,
        forward_dead_lettered_messages_to="dead-letters",
        user_metadata="made by a test",
    )
    for queue in (created, await admin.get_queue("new-queue")):
        assert queue.lock_duration == timedelta(seconds=30)
        assert queue.max_delivery_count == 4
        assert queue.requires_session is True
        assert queue.default_message_time_to_live == timedelta(hours=2)
        assert queue.dead_lettering_on_message_expiration is True
        assert queue.forward_dead_lettered_messages_to.rpartition("/")[2] == "dead-letters"
        assert queue.user_metadata == "made by a test"
    with pytest.raises(ResourceExistsError):
        await admin.create_queue("new-queue")
    await bus.sender("new-queue").send_messages(ServiceBusMessage("kept", session_id="a"))
    queue.max_delivery_count = 7
    queue.lock_duration = timedelta(seconds=40)
    await admin.update_queue(queue)
    queue = await admin.get_queue("new-queue")
    assert (queue.max_delivery_count, queue.lock_duration) == (7, timedelta(seconds=40))
    receiver = bus.receiver("new-queue", session_id="a")
    assert bodies(await take(receiver)) == [b"kept"]
    with pytest.raises(HttpResponseError):
        await admin.create_queue("bad-queue", lock_duration=timedelta(hours=1))

    topic = await admin.create_topic("new-topic", requires_duplicate_detection=True)
    assert topic.requires_duplicate_detection is True
    subscription = await admin.create_subscription("new-topic", "first", max_delivery_count=2)
    assert (subscription.name, subscription.max_delivery_count) == ("first", 2)
    with pytest.raises(ResourceExistsError):
        await admin.create_subscription("new-topic", "first")
    await bus.topic_sender("new-topic").send_messages(ServiceBusMessage("published"))
    assert bodies(await take(bus.receiver("new-topic/first"))) == [b"published"]
    subscription.lock_duration = timedelta(seconds=20)
    await admin.update_subscription("new-topic", subscription)
    assert (await admin.get_subscription("new-topic", "first")).lock_duration == timedelta(seconds=20)

    await admin.delete_subscription("new-topic", "first")
    assert [it async for it in admin.list_subscriptions("new-topic")] == []
    await admin.delete_topic("new-topic")
    await admin.delete_queue("new-queue")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_topic("new-topic")
    with pytest.raises(ResourceNotFoundError):
        await admin.delete_queue("new-queue")
    assert "new-queue" not in [queue.name async for queue in admin.list_queues()]
    with pytest.raises(MessagingEntityNotFoundError):
        await bus.sender("new-queue", bus.another_client()).send_messages(ServiceBusMessage("lost"))


@pytest.mark.step("admin-entities")
async def test_admin_counts(bus):
    admin = bus.administration()
    sender, receiver = bus.sender("plain"), bus.receiver("plain")
    await sender.send_messages([ServiceBusMessage(f"m{number}") for number in range(5)])
    await sender.schedule_messages(ServiceBusMessage("later"), now() + timedelta(hours=1))
    first, _ = await take(receiver, 2)
    await receiver.dead_letter_message(first)
    counts = await admin.get_queue_runtime_properties("plain")
    # Locked ones are active, too.
    assert counts.active_message_count == 4
    assert counts.dead_letter_message_count == 1
    assert counts.scheduled_message_count == 1
    assert counts.transfer_message_count == 0
    assert counts.transfer_dead_letter_message_count == 0
    assert counts.total_message_count == 6
    assert counts.size_in_bytes > 0
    assert counts.created_at_utc <= datetime.now(UTC)
    by_name = {queue.name: queue async for queue in admin.list_queues_runtime_properties()}
    assert by_name["plain"].active_message_count == 4
    assert by_name["peeked"].total_message_count == 0

    await bus.topic_sender("fan").send_messages(ServiceBusMessage("news"))
    assert (await admin.get_topic_runtime_properties("fan")).subscription_count == 2
    counts = await admin.get_subscription_runtime_properties("fan", "s1")
    assert (counts.active_message_count, counts.dead_letter_message_count) == (1, 0)


@pytest.mark.step("admin-rules")
async def test_admin_rules(bus):
    admin = bus.administration()
    rules = {rule.name: rule async for rule in admin.list_rules("filtered", "sql")}
    assert list(rules) == ["large-orders"]
    rule = rules["large-orders"]
    assert isinstance(rule.filter, SqlRuleFilter)
    assert rule.filter.sql_expression == "quantity > 10 AND colour IN ('red', 'blue')"
    assert rule.action.sql_expression == "SET priority = 'high'; SET doubled = quantity * 2; REMOVE colour"
    rule = await admin.get_rule("filtered", "correlation", "red-important")
    assert isinstance(rule.filter, CorrelationRuleFilter)
    assert (rule.filter.correlation_id, rule.filter.properties) == ("important", {"colour": "red"})
    assert isinstance((await admin.get_rule("filtered", "all", "$Default")).filter, TrueRuleFilter)
    assert isinstance((await admin.get_rule("filtered", "none", "nothing")).filter, FalseRuleFilter)

    receiver, sender = bus.receiver("ruled/rules"), bus.topic_sender("ruled")
    names = itertools.count()

    async def what_passes(**properties) -> list[bytes]:
        """What arrives of one message: nothing, or one copy for each rule that matches and has an action."""
        await sender.send_messages(ServiceBusMessage(f"m{next(names)}", application_properties=properties))
        messages = await everything_in(receiver)
        for message in await take(receiver, len(messages)) if messages else []:
            await receiver.complete_message(message)
        return [dict(message.application_properties) for message in messages]

    created = await admin.create_rule(
        "ruled",
        "rules",
        "reds",
        filter=SqlRuleFilter("colour = @wanted", parameters={"wanted": "red"}),
        action=SqlRuleAction("SET seen = 1"),
    )
    assert created.filter.sql_expression == "colour = @wanted"
    assert created.filter.parameters == {"wanted": "red"}
    assert created.action.sql_expression == "SET seen = 1"
    with pytest.raises(ResourceExistsError):
        await admin.create_rule("ruled", "rules", "reds")
    await admin.delete_rule("ruled", "rules", "$Default")
    assert await what_passes(colour="red") == [{b"colour": b"red", b"seen": 1}]
    assert await what_passes(colour="blue") == []

    rule = await admin.get_rule("ruled", "rules", "reds")
    rule.filter = CorrelationRuleFilter(
        label="none",
        properties={"text": "x", "number": 5, "flag": True, "ratio": 0.5},
    )
    rule.action = None
    await admin.update_rule("ruled", "rules", rule)
    rule = await admin.get_rule("ruled", "rules", "reds")
    assert (rule.filter.label, rule.filter.properties) == (
        "none",
        {"text": "x", "number": 5, "flag": True, "ratio": 0.5},
    )
    assert await what_passes(colour="red") == []
    await admin.delete_rule("ruled", "rules", "reds")
    assert [rule async for rule in admin.list_rules("ruled", "rules")] == []
    with pytest.raises(ResourceNotFoundError):
        await admin.get_rule("ruled", "rules", "reds")
    with pytest.raises(HttpResponseError):
        await admin.create_rule("ruled", "rules", "bad", filter=SqlRuleFilter("colour = = 'red'"))
