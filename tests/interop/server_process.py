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
    """A running server; `ready_url` is asked until it answers anything at all."""

    running: list["ServerProcess"] = []

    def __init__(self, name: str, command: list, ready_url: str, environment: dict):
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"orderup-{name}-"))
        self.output_file = self.folder / "output"
        self.shown = 0
        with self.output_file.open("wb") as output:
            self.child = subprocess.Popen(
                [str(argument) for argument in command],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        ServerProcess.running.append(self)
        try:
            wait_until(lambda: self._answers(ready_url), f"{name} to be ready")
        except BaseException as error:
            error.add_note(f"{name} printed:\n{self.output()}")
            self.stop()
            raise

    def _answers(self, url: str) -> bool:
        status = self.child.poll()
        assert status is None, f"{self.name} ended with {status} at its start"
        try:
            request("GET", url)
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
