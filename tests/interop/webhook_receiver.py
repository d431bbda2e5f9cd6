"""The vendors' end, or the bus's: a web server in a thread of this process that keeps each request as it came."""

import http.server
import threading
from typing import NamedTuple


class Webhook(NamedTuple):
    path: str
    headers: dict
    body: bytes


class WebhookReceiver:
    """A running receiver. `answers` says which status a path gets, `otherwise` what it is where that says nothing."""

    def __init__(self, otherwise: int = 204):
        self.got: list[Webhook] = []
        self.answers: dict[str, int] = {}
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(Webhook(self.path, dict(self.headers.items()), body))
                self.send_response(receiver.answers.get(self.path, otherwise))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, name="webhook-receiver"
        )

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def at(self, path: str) -> list[Webhook]:
        return [webhook for webhook in self.got if webhook.path == path]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
