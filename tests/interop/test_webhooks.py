"""Webhooks as a vendor gets them, verified with the libraries that a vendor would use."""

import json
import subprocess

import pytest
import standardwebhooks

from events import ADDRESS, CUSTOMER, REASON, order_cancelled, order_placed
from orderup import assert_delivered, assert_later
from server_process import INTEROP, node_environment

BAKERY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FLORIST_OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
FLORIST_NEW = "whsec_1SvdDUtpz6orV/hSL0zE41lyNMu6iDOGGTDiN4VBgu0="
SECRETS = [("bakery", BAKERY), ("florist", FLORIST_OLD), ("florist", FLORIST_NEW)]


class NotVerified(Exception):
    pass


def verify_in_python(secret: str, headers: dict, body: bytes) -> dict:
    try:
        return standardwebhooks.Webhook(secret).verify(body, headers)
    except standardwebhooks.WebhookVerificationError as error:
        raise NotVerified from error


def verify_in_node(secret: str, headers: dict, body: bytes) -> dict:
    message = json.dumps({"secret": secret, "headers": headers, "body": body.decode()})
    command = ["node", INTEROP / "verify.mjs"]
    done = subprocess.run(command, input=message.encode(), capture_output=True, env=node_environment(), timeout=60)
    if done.returncode == 3:
        raise NotVerified(done.stderr.decode())
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


VERIFIERS = pytest.mark.parametrize("verify", [verify_in_python, verify_in_node], ids=["python", "node"])


@pytest.fixture
def orderup(start_orderup, receiver):
    secrets = {"bakery": [BAKERY], "florist": [FLORIST_NEW, FLORIST_OLD]}
    vendors = [
        {"id": vendor, "name": vendor, "url": receiver.url(f"/{vendor}"), "secrets": held, "allowPrivate": True}
        for vendor, held in secrets.items()
    ]
    return start_orderup({}, vendors)


@VERIFIERS
@pytest.mark.parametrize("make_event", [order_placed, order_cancelled])
def test_every_secret_of_a_vendor_verifies_its_webhook(orderup, receiver, verify, make_event):
    event = make_event()
    assert_delivered(orderup.deliver("vendor-notify", event))
    assert len(receiver.got) == 2
    for vendor, secret in SECRETS:
        [webhook] = receiver.at(f"/{vendor}")
        payload = verify(secret, webhook.headers, webhook.body)
        assert payload["type"] == event["type"]
        assert payload["timestamp"] == event["time"]
        assert payload["data"]["orderId"] == event["data"]["orderId"]
        assert payload == json.loads(webhook.body)


@VERIFIERS
def test_a_body_that_was_changed_on_the_way_is_found_out(orderup, receiver, verify):
    assert_delivered(orderup.deliver("vendor-notify", order_placed()))
    for vendor, secret in SECRETS:
        [webhook] = receiver.at(f"/{vendor}")
        changed = webhook.body.replace(b'"quantity":', b'"quantity":1')
        assert changed != webhook.body
        json.loads(changed)
        with pytest.raises(NotVerified):
            verify(secret, webhook.headers, changed)


@VERIFIERS
def test_one_vendors_secret_does_not_verify_anothers_webhook(orderup, receiver, verify):
    assert_delivered(orderup.deliver("vendor-notify", order_placed()))
    [bakery], [florist] = receiver.at("/bakery"), receiver.at("/florist")
    for secret, webhook in [(FLORIST_OLD, bakery), (FLORIST_NEW, bakery), (BAKERY, florist)]:
        with pytest.raises(NotVerified):
            verify(secret, webhook.headers, webhook.body)


@VERIFIERS
def test_another_attempt_is_the_same_webhook_and_verifies_again(orderup, receiver, verify):
    event = order_placed()
    receiver.answers["/florist"] = 500
    assert_later(orderup.deliver("vendor-notify", event))
    receiver.answers.clear()
    assert_delivered(orderup.deliver("vendor-notify", event))
    attempts = receiver.at("/florist")
    assert len(attempts) >= 2
    assert len({webhook.headers["webhook-id"] for webhook in attempts}) == 1
    assert len({webhook.body for webhook in attempts}) == 1
    for webhook in attempts:
        verify(FLORIST_OLD, webhook.headers, webhook.body)


def test_a_vendor_reads_its_own_lines_and_nothing_about_the_customer(orderup, receiver):
    for make_event in (order_placed, order_cancelled):
        assert_delivered(orderup.deliver("vendor-notify", make_event()))
    for vendor, skus in {"bakery": ["PANCAKE-12"], "florist": ["TULIP-7"]}.items():
        placed, cancelled = (json.loads(webhook.body)["data"] for webhook in receiver.at(f"/{vendor}"))
        for data in (placed, cancelled):
            assert [line["sku"] for line in data["lineItems"]] == skus
        assert cancelled["reason"] == REASON
    for webhook in receiver.got:
        for personal in (CUSTOMER, ADDRESS, "cnon"):
            assert personal not in webhook.body.decode()
