"""Emails through SMTP into a server that fails: which failures are worth another delivery, and which are not."""

import email
import email.policy

import pytest

from events import ADDRESS, order_placed
from loopback import free_port
from orderup import assert_dead, assert_delivered, assert_later


@pytest.fixture
def orderup(start_orderup, faulty_smtp):
    return start_orderup({"SMTP_URL": faulty_smtp.url})


def ids_of(taken: list[bytes]) -> list[str]:
    return [email.message_from_bytes(mail, policy=email.policy.default)["Message-ID"] for mail in taken]


@pytest.mark.parametrize("answer", ["451 4.3.0 Try again later", "452 4.2.2 Mailbox of {address} full"])
@pytest.mark.parametrize("command", ["rcpt", "data"])
def test_a_fault_that_passes_is_waited_out(orderup, faulty_smtp, command, answer):
    event = order_placed()
    setattr(faulty_smtp, command, answer)
    assert_later(orderup.deliver("notify", event))
    assert faulty_smtp.taken == []
    assert ADDRESS not in orderup.output()
    faulty_smtp.recover()
    assert_delivered(orderup.deliver("notify", event))
    assert len(faulty_smtp.taken) == 1


@pytest.mark.parametrize(
    ("command", "answer"),
    [("rcpt", "550 5.1.1 {address}: no such user here"), ("data", "554 5.6.0 Not wanted by {address}")],
)
def test_a_refusal_for_good_ends_the_message(orderup, faulty_smtp, command, answer):
    setattr(faulty_smtp, command, answer)
    assert_dead(orderup.deliver("notify", order_placed()))
    assert faulty_smtp.taken == []
    # The server's text quotes the customer; ours does not.
    assert ADDRESS not in orderup.output()
    # Nor is another message held up by it.
    faulty_smtp.recover()
    assert_delivered(orderup.deliver("notify", order_placed()))
    assert len(faulty_smtp.taken) == 1


@pytest.mark.parametrize("command", ["rcpt", "data"])
def test_a_refusal_that_may_be_about_us_is_waited_out(orderup, faulty_smtp, command):
    setattr(faulty_smtp, command, "554 5.7.1 Client host blocked, {address}")
    assert_later(orderup.deliver("notify", order_placed()))
    assert ADDRESS not in orderup.output()
    # Nor is another message held up by it.
    faulty_smtp.recover()
    assert_delivered(orderup.deliver("notify", order_placed()))


def test_a_connection_that_breaks_after_the_message_is_tried_again_with_the_same_id(orderup, faulty_smtp):
    event = order_placed()
    assert_delivered(orderup.deliver("notify", event))
    faulty_smtp.drop_after_data = True
    assert_later(orderup.deliver("notify", event))
    assert faulty_smtp.ends_of_data >= 2
    faulty_smtp.recover()
    assert_delivered(orderup.deliver("notify", event))
    first, second = ids_of(faulty_smtp.taken)
    assert first == second


def test_a_server_that_falls_silent_after_the_message_does_not_hold_it_for_ever(orderup, faulty_smtp):
    event = order_placed()
    faulty_smtp.hang_after_data = True
    # The request of this test would fail before the host would stop waiting.
    assert_later(orderup.deliver("notify", event))
    assert faulty_smtp.ends_of_data >= 1
    assert faulty_smtp.taken == []
    faulty_smtp.recover()
    assert_delivered(orderup.deliver("notify", event))
    assert len(faulty_smtp.taken) == 1


def test_a_server_that_is_not_there_is_waited_for(start_orderup):
    orderup = start_orderup({"SMTP_URL": f"smtp://127.0.0.1:{free_port()}"})
    assert_later(orderup.deliver("notify", order_placed()))
