"""The local Service Bus with `azure-servicebus`: what entities do by themselves to the messages that they are sent."""

from datetime import timedelta

import pytest
from azure.servicebus import ServiceBusMessage

from servicebus_sdk import (
    assert_empty,
    bodies,
    body,
    everything_in,
    now,
    take,
    take_one,
    until,
)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # as in Bus.close


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
