"""The Service Bus emulator as a process, with the entities of `servicebus.json` and a data folder of its own.

`SERVICEBUS_EMULATOR_BIN` names the binary. It takes any free ports and prints them; after `kill` it comes back on the
same ports with the same folder, as a user's would after a crash.
"""

import base64
import hashlib
import hmac
import os
import re
import time
from pathlib import Path
from urllib.parse import quote_plus

from loopback import Answer, request
from server_process import INTEROP, ServerProcess

ENTITIES = INTEROP / "servicebus.json"
KEY_NAME = "RootManageSharedAccessKey"
KEY = "SAS_KEY_VALUE"
READY = re.compile(
    r"^Service Bus emulator ready: REST data plane at http://127\.0\.0\.1:(\d+), AMQP at 127\.0\.0\.1:(\d+)\n"
    r"(Endpoint=\S+)\n",
    re.MULTILINE,
)


class ServicebusEmulator(ServerProcess):
    """A namespace of its own, ready for clients."""

    def __init__(self):
        self.binary = Path(os.environ["SERVICEBUS_EMULATOR_BIN"]).resolve()
        self.http_port = 0
        self.amqp_port = 0
        self.connection_string = ""
        self.starts = 0
        super().__init__("servicebus-emulator", self._command(), "", {})

    def _command(self) -> list:
        return [
            self.binary,
            *("--config", ENTITIES),
            *("--data", "data"),
            *("--http-port", self.http_port),
            *("--amqp-port", self.amqp_port),
        ]

    def is_ready(self) -> bool:
        announced = READY.findall(self.output())
        if len(announced) == self.starts:
            return False
        http_port, amqp_port, self.connection_string = announced[-1]
        self.http_port, self.amqp_port = int(http_port), int(amqp_port)
        self.starts = len(announced)
        return True

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}/{path}"

    def kill(self):
        """Ends it as a power cut would: it gets no chance to write anything more."""
        self.child.kill()
        self.child.wait()

    def start_again(self):
        self._start(self._command())
        self._wait_until_ready()

    def rest(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """A request to the REST data plane, authorised; an underscore in a header's name stands for a hyphen."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        token = shared_access_signature(f"http://127.0.0.1:{self.http_port}/{path.partition('?')[0]}")
        return request(method, self.url(path), body, {"Authorization": token, **headers})

    def resident_kilobytes(self) -> int:
        """How much memory it holds now."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1])


def shared_access_signature(resource: str) -> str:
    """The token that opens a resource for an hour."""
    resource, expiry = quote_plus(resource), int(time.time()) + 3600
    signature = hmac.digest(KEY.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256)
    return (
        f"SharedAccessSignature sr={resource}&sig={quote_plus(base64.b64encode(signature))}&se={expiry}&skn={KEY_NAME}"
    )
