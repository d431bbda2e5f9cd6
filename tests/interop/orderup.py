"""The handler, started as the Functions host starts it, and the messages that the host would deliver.

`ORDERUP_BIN` names the binary. Its environment holds the settings that a test gives and those below, nothing else.
"""

import base64
import json
import os
from pathlib import Path
from typing import NamedTuple

from loopback import Answer, free_port, request
from server_process import ServerProcess
from webhook_receiver import Webhook, WebhookReceiver

SETTINGS = {
    "ServiceBusConnection": "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;"
    "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;",
    "EMAIL_PROVIDER": "smtp",
    "SMTP_URL": "smtp://127.0.0.1:9",
    "EMAIL_FROM": "Café Orderup <orders@shop.example>",
    "EMAIL_REPLY_TO": "help@shop.example",
}


class Orderup(ServerProcess):
    """The handler, ready for invocations."""

    def __init__(self, settings: dict, vendors: Path):
        self.port = free_port()
        # What is published: the copies in which a message goes on.
        self.bus = WebhookReceiver(otherwise=201)
        environment = {
            **SETTINGS,
            "SERVICEBUS_REST_ENDPOINT": self.bus.url(""),
            "VENDORS_FILE": str(vendors),
            **settings,
            "FUNCTIONS_CUSTOMHANDLER_PORT": str(self.port),
        }
        binary = Path(os.environ["ORDERUP_BIN"]).resolve()
        super().__init__("orderup", [binary], f"http://127.0.0.1:{self.port}/", environment)

    def __enter__(self):
        self.bus.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            self.bus.__exit__()
            raise

    def __exit__(self, *exception):
        try:
            super().__exit__(*exception)
        finally:
            self.bus.__exit__()

    def deliver(self, function: str, message: dict) -> "Delivery":
        """Delivers a message to a triggered function, as the host does for `"dataType": "binary"`."""
        body = json.dumps(message, ensure_ascii=False).encode()
        envelope = {
            "Data": {"message": base64.b64encode(body).decode()},
            "Metadata": {"MessageId": '"m-1"', "DeliveryCount": "1", "sys": {"MethodName": function}},
        }
        invocation = {"X-Azure-Functions-InvocationId": "3f1c0f0e-0000-4000-8000-000000000001"}
        before = len(self.bus.got)
        answer = request("POST", f"http://127.0.0.1:{self.port}/{function}", envelope, invocation)
        return Delivery(answer, self.bus.got[before:])


class Delivery(NamedTuple):
    """The answer to the host, and the copies that were on the bus before it."""

    answer: Answer
    copies: list[Webhook]

    def assert_completed(self):
        assert (self.answer.status, self.answer.json()) == (200, {"Outputs": {}, "Logs": [], "ReturnValue": None})


def assert_delivered(delivery: Delivery):
    delivery.assert_completed()
    assert delivery.copies == []


def assert_later(delivery: Delivery):
    delivery.assert_completed()
    [copy] = delivery.copies
    assert "ScheduledEnqueueTimeUtc" in json.loads(copy.headers["brokerproperties"])
    assert "dead-letter-reason" not in copy.headers


def assert_dead(delivery: Delivery):
    delivery.assert_completed()
    [copy] = delivery.copies
    assert "ScheduledEnqueueTimeUtc" not in json.loads(copy.headers["brokerproperties"])
    assert copy.headers["dead-letter-reason"] == '"EmailRefused"'
