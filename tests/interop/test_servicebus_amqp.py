"""The Service Bus emulator with an AMQP client that knows nothing of Service Bus: `rhea`, in `servicebus_amqp/`.

What it shows is what `azure-servicebus` has no API for, transactions before all, and what its API hides: the outcomes
on the wire, credit, types, who is let in. Each step runs in a process of its own against an emulator of its own.
"""

import subprocess

import pytest

from server_process import INTEROP, node_environment

# What each shows, in the table's words.
STEPS = {
    "sasl_plain": "amqp-sasl",
    "sasl_plain_with_a_wrong_key": "bad-key",
    "sasl_with_a_token": "amqp-sasl",
    "tokens_that_are_refused": "bad-key",
    "credit_and_drain": "amqp-credit-and-drain",
    "presettled": "receive-and-delete",
    "a_detached_link_settles_nothing": "amqp-detach-settles-nothing",
    "a_lost_connection_settles_nothing": "amqp-detach-settles-nothing",
    "message_too_large": "message-too-large",
    "unknown_address": "unknown-entity",
    "heartbeats": "amqp-heartbeats",
    "settled_outcomes": "abandon-with-properties",
    "deferred_by_outcome": "defer",
    "dead_lettered_by_outcome": "dead-letter-with-reason",
    "what_came_before_the_close_is_done": "amqp-close",
    "management_of_what_is_unknown": "amqp-management-errors",
    "rules": "rules",
    "transactions_commit": "transactions",
    "transactions_roll_back": "transactions",
    "transactions_across_entities": "transactions",
    "transactions_lock_lost": "transactions",
    "transactions_unknown": "transactions",
    "transactions_end_with_their_connection": "transactions",
    "annotations": "types-round-trip",
    "types_on_the_wire": "types-round-trip",
    "bodies_on_the_wire": "types-round-trip",
    "batches": "batch-send",
}
TIME_LIMIT_SECONDS = 60


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["node", str(INTEROP / "servicebus_amqp" / "run.mjs"), *arguments],
        env=node_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
    )


def test_no_step_is_left_out():
    listed = run()
    assert listed.returncode == 0, listed.stderr
    assert sorted(listed.stdout.split()) == sorted(STEPS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.step(step, client="rhea")) for name, step in STEPS.items()],
)
def test_step(name, servicebus):
    result = run(name, str(servicebus.amqp_port))
    assert result.returncode == 0, result.stdout + result.stderr
