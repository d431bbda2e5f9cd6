"""The local Service Bus with the administration clients of `azure-servicebus`: entities, counts and rules."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusMessage
from azure.servicebus.exceptions import MessagingEntityNotFoundError
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from servicebus_emulator import ENTITIES
from servicebus_sdk import MINUTE, TIME_TO_LIVE, bodies, everything_in, now, take

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # as in Bus.close


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
        filter=SqlRuleFilter("colour = 'red'"),
        action=SqlRuleAction("SET seen = 1"),
    )
    assert created.filter.sql_expression == "colour = 'red'"
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
