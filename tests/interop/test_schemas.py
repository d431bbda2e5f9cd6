"""Requests to the email providers, held against their OpenAPI documents by Prism."""

import pytest

from events import order_cancelled, order_placed
from loopback import request
from orderup import assert_delivered

EVENTS = pytest.mark.parametrize("make_event", [order_placed, order_cancelled])
LOCALES = pytest.mark.parametrize("locale", ["en-IE", "de-DE", "fr-FR"])


@pytest.fixture
def orderup_on_sendgrid(start_orderup, sendgrid):
    key = "SG.a-key-of.these-tests"
    return start_orderup(
        {"EMAIL_PROVIDER": "sendgrid", "SENDGRID_API_KEY": key, "SENDGRID_BASE_URL": sendgrid.url}
    )


@pytest.fixture
def orderup_on_acs(start_orderup, acs):
    access = f"endpoint={acs.url}/;accesskey=c2VjcmV0LWtleS1vZi10aGUtdGVzdHM="
    return start_orderup({"EMAIL_PROVIDER": "acs", "ACS_CONNECTION_STRING": access})


@EVENTS
@LOCALES
def test_sendgrids_schema_holds_for_every_email(orderup_on_sendgrid, sendgrid, make_event, locale):
    with sendgrid.requests():
        assert_delivered(orderup_on_sendgrid.deliver("notify", make_event(locale)))


@EVENTS
@LOCALES
def test_the_schema_of_acs_holds_for_every_email(orderup_on_acs, acs, make_event, locale):
    with acs.requests():
        assert_delivered(orderup_on_acs.deliver("notify", make_event(locale)))


# What Prism must refuse, so that its silence about our requests means something.

MAIL = {
    "personalizations": [{"to": [{"email": "ada@example.net"}]}],
    "from": {"email": "orders@shop.example"},
    "subject": "We have your order",
    "content": [{"type": "text/plain", "value": "Hello"}],
}
MESSAGE = {
    "senderAddress": "orders@shop.example",
    "content": {"subject": "We have your order", "plainText": "Hello"},
    "recipients": {"to": [{"address": "ada@example.net"}]},
}
SEND = "/emails:send?api-version=2025-09-01"


def without(body: dict, name: str) -> dict:
    return {key: value for key, value in body.items() if key != name}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (MAIL, {"Authorization": "Bearer x"}, 202),
        (MAIL, {}, 401),
        (without(MAIL, "personalizations"), {"Authorization": "Bearer x"}, 400),
        (MAIL | {"content": [{"type": "text/plain"}]}, {"Authorization": "Bearer x"}, 400),
        (MAIL | {"from": "orders@shop.example"}, {"Authorization": "Bearer x"}, 400),
        # The API takes this one; its document does not, and ours is put elsewhere.
        (MAIL | {"custom_args": {"order": "1"}}, {"Authorization": "Bearer x"}, 400),
    ],
)
def test_prism_knows_a_broken_request_to_sendgrid(sendgrid, body, headers, status):
    answer = request("POST", f"{sendgrid.url}/v3/mail/send", body, headers)
    assert answer.status == status, answer
    assert (answer.headers["sl-violations"] is None) == (status == 202)


@pytest.mark.parametrize(
    ("path", "body", "headers", "violation"),
    [
        (SEND, MESSAGE, {}, None),
        (SEND, without(MESSAGE, "recipients"), {}, "recipients"),
        (SEND, MESSAGE | {"replyTo": ["help@shop.example"]}, {}, "replyTo"),
        (SEND, MESSAGE | {"disableUserEngagementTracking": True}, {}, "disableUserEngagementTracking"),
        (SEND, MESSAGE, {"Operation-Id": "ORD-1001"}, "operation-id"),
        ("/emails:send", MESSAGE, {}, "api-version"),
    ],
)
def test_prism_knows_a_broken_request_to_acs(acs, path, body, headers, violation):
    answer = request("POST", acs.url + path, body, {"Authorization": "HMAC-SHA256 x", **headers})
    if violation is None:
        assert answer.status == 202
    else:
        assert answer.status == 400
        assert violation in answer.headers["sl-violations"]
