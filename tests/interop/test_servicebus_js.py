"""The Service Bus emulator with `@azure/service-bus`: the steps of `servicebus.test.mjs`, which run at the same time.

Each has an emulator of its own there, and the results are written there too.
"""

import json
import os
import signal
import subprocess

from server_process import INTEROP, node_environment
from servicebus_results import FOLDER, STEPS

COMMAND = ["node", "--test", "--test-reporter=spec", "servicebus.test.mjs"]


def test_steps():
    environment = node_environment() | {"SERVICEBUS_EMULATOR_BIN": os.environ["SERVICEBUS_EMULATOR_BIN"]}
    with subprocess.Popen(
        COMMAND,
        cwd=INTEROP,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as node:
        try:
            output, _ = node.communicate()
        except BaseException:
            # The test runner, its child and the emulators of that.
            os.killpg(node.pid, signal.SIGTERM)
            raise
    assert node.returncode == 0, output
    steps = json.loads((FOLDER / "js.json").read_text())["steps"]
    assert set(STEPS) - set(steps) == set(), output
