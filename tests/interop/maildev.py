"""maildev (npm): an SMTP server that keeps what it gets and shows it over HTTP."""

import email
import email.policy
from email.message import EmailMessage

from loopback import free_port, request, wait_until
from server_process import MODULES, ServerProcess, node_environment


class Maildev(ServerProcess):
    """A running maildev; `login` is the user and the password that it demands."""

    def __init__(self, login: tuple[str, str] | None = None):
        self.smtp_port, self.web_port = free_port(), free_port()
        demands = ["--incoming-user", login[0], "--incoming-pass", login[1]] if login else []
        command = [
            "node", MODULES / "maildev/dist/bin/maildev.js",
            "--smtp", self.smtp_port, "--ip", "127.0.0.1",
            "--web", self.web_port, "--web-ip", "127.0.0.1",
            # Relative to its own folder. The default is one folder for everybody on the machine.
            "--mail-directory", "mail",
            *demands,
        ]  # fmt: skip
        super().__init__("maildev", command, self.url("healthz"), node_environment())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.web_port}/api/{path}"

    def about(self, order_id: str) -> list[dict]:
        """The mails about an order, as maildev understood them."""
        mails = request("GET", self.url("email")).json()
        return [mail for mail in mails if mail["headers"].get("x-order-id") == order_id]

    def wait_for(self, order_id: str, count: int = 1) -> list[dict]:
        wait_until(lambda: len(self.about(order_id)) >= count, f"{count} mails about {order_id}")
        mails = self.about(order_id)
        assert len(mails) == count
        return mails

    def source(self, mail: dict) -> EmailMessage:
        """The mail as Python's own parser understands its bytes."""
        raw = request("GET", self.url(f"email/{mail['id']}/source")).body
        return email.message_from_bytes(raw, policy=email.policy.default)
