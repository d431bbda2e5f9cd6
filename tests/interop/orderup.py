"""The handler, started as the Functions host starts it, and the messages that the host would deliver.

`ORDERUP_BIN` names the binary. Its environment holds the settings that a test gives and those below, nothing else.
"""

import base64
import json
import os
from pathlib import Path

from loopback import Answer, free_port, request
from server_process import ServerProcess

SETTINGS = {
    # Nothing in these suites is published, so nobody listens there.
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
        environment = {
            **SETTINGS,
            "VENDORS_FILE": str(vendors),
            **settings,
            "FUNCTIONS_CUSTOMHANDLER_PORT": str(self.port),
        }
        binary = Path(os.environ["ORDERUP_BIN"]).resolve()
        super().__init__("orderup", [binary], f"http://127.0.0.1:{self.port}/", environment)

    def deliver(self, function: str, message: dict) -> Answer:
        """Delivers a message to a triggered function, as the host does for `"dataType": "binary"`."""
        body = json.dumps(message, ensure_ascii=False).encode()
        envelope = {
            "Data": {"message": base64.b64encode(body).decode()},
            "Metadata": {"MessageId": '"m-1"', "DeliveryCount": "1", "sys": {"MethodName": function}},
        }
        invocation = {"X-Azure-Functions-InvocationId": "3f1c0f0e-0000-4000-8000-000000000001"}
        return request("POST", f"http://127.0.0.1:{self.port}/{function}", envelope, invocation)


def assert_delivered(answer: Answer):
    assert (answer.status, answer.json()) == (200, {"Outputs": {}, "Logs": [], "ReturnValue": None})


def assert_later(answer: Answer):
    assert (answer.status, answer.json()) == (503, {"outcome": "later"})


def assert_dead(answer: Answer):
    assert (answer.status, answer.json()) == (422, {"outcome": "dead"})
