"""The local Service Bus with `azure-servicebus`: sessions, their locks and their states."""

import asyncio
from datetime import timedelta

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from servicebus_sdk import MINUTE, assert_empty, bodies, body, now, open_all, take, take_one, until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # as in Bus.close


@pytest.mark.step("session-named")
async def test_session_named(bus):
    sender = bus.sender("sessions")
    await sender.send_messages(
        [ServiceBusMessage(f"{session} {number}", session_id=session) for number in range(2) for session in ("a", "b")]
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
    await open_all(again)
    await assert_empty(again)
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
