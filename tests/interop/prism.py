"""Prism (npm): a server that holds each request against an OpenAPI document, and as a proxy each answer as well."""

from pathlib import Path

from loopback import free_port, wait_until
from server_process import INTEROP, MODULES, ServerProcess, node_environment

PASSED = "The request passed the validation rules"
FAILED = ("did not pass the validation rules", "Violation:", "error  ")


class Prism(ServerProcess):
    """Prism as the mock of one document under `specs/`."""

    def __init__(self, document: str):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            "node", MODULES / "@stoplight/prism-cli/dist/index.js",
            "mock", "--errors", "-h", "127.0.0.1", "-p", self.port, INTEROP / "specs" / document,
        ]  # fmt: skip
        super().__init__(f"prism-{Path(document).stem}", command, f"{self.url}/", node_environment())
        # The question whether it is ready is on no path of the document.
        wait_until(lambda: "NO_PATH_MATCHED_ERROR" in self.output(), "prism's word on the first request")

    def requests(self):
        """A block that must make one request, which Prism must pass."""
        return _PassedRequest(self)


class _PassedRequest:
    def __init__(self, prism: Prism):
        self.prism = prism

    def __enter__(self):
        self.start = len(self.prism.output())

    def __exit__(self, error, *_):
        if error:
            return
        log = wait_until(lambda: self._finished(), "prism's word on the request")
        assert log.count("Request received") == 1, log
        assert log.count(PASSED) == 1, log
        assert not any(failed in log for failed in FAILED), log

    def _finished(self):
        log = self.prism.output()[self.start :]
        return log if "Responding with" in log or "error" in log else None


class PrismProxy(ServerProcess):
    """Prism between a caller and a server: what is not as the document has it gets an answer of Prism's own."""

    def __init__(self, document: Path, upstream: str):
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [
            "node", MODULES / "@stoplight/prism-cli/dist/index.js",
            "proxy", "--errors", "-h", "127.0.0.1", "-p", self.url.rpartition(":")[2], document, upstream,
        ]  # fmt: skip
        super().__init__("prism-proxy", command, f"{self.url}/", node_environment())
