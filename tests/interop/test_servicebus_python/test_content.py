"""The local Service Bus with `azure-servicebus`: what is in a message comes out as it went in, through both doors."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus._pyamqp.utils import amqp_long_value
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.servicebus.exceptions import MessageLockLostError

from servicebus_sdk import (
    assert_empty,
    bodies,
    body,
    everything_in,
    now,
    take,
    take_one,
)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # as in Bus.close


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
