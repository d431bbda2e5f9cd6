"""A server as a child process: started with nothing of our environment, ended with its `with` block.

What it prints goes to a file, hence it never blocks; `conftest.py` shows what came during a failed test.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from loopback import request, wait_until

INTEROP = Path(__file__).parent
MODULES = INTEROP / "node_modules"


class ServerProcess:
    """A running server; it is ready when `ready_url` answers anything at all."""

    running: list["ServerProcess"] = []

    def __init__(self, name: str, command: list, ready_url: str, environment: dict):
        self.name = name
        self.ready_url = ready_url
        self.environment = environment
        self.folder = Path(tempfile.mkdtemp(prefix=f"orderup-{name}-"))
        self.output_file = self.folder / "output"
        self.shown = 0
        self._start(command)
        ServerProcess.running.append(self)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _start(self, command: list):
        with self.output_file.open("ab") as output:
            self.child = subprocess.Popen(
                [str(argument) for argument in command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_ready(self):
        try:
            wait_until(self._is_running_and_ready, f"{self.name} to be ready")
        except BaseException as error:
            error.add_note(f"{self.name} printed:\n{self.output()}")
            raise

    def _is_running_and_ready(self) -> bool:
        status = self.child.poll()
        assert status is None, f"{self.name} ended with {status} at its start"
        return self.is_ready()

    def is_ready(self) -> bool:
        try:
            request("GET", self.ready_url)
            return True
        except ConnectionError:
            return False

    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def output_since_last_shown(self) -> str:
        output = self.output()
        new = output[self.shown :]
        self.shown = len(output)
        return new

    def stop(self):
        """Asks it to end, and ends it when it does not listen."""
        ServerProcess.running.remove(self)
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def node_environment() -> dict:
    """All that a server on Node gets to see."""
    return {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "NO_COLOR": "1"}
