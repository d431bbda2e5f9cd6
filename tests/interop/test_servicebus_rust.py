"""The Service Bus emulator with the crate `azservicebus`, unmodified, over AMQP: the scripted steps, as `azservicebus/` takes them.

`AZSERVICEBUS_STEPS` names the program. It starts an emulator for each part of a step, says in a line whether the part passed,
and leaves the results for the table.
"""

import contextlib
import os
import signal
import subprocess


def test_every_step_passes():
    # A group of its own: should the program be stopped half way, its emulators are stopped with it.
    program = subprocess.Popen(
        [os.environ["AZSERVICEBUS_STEPS"]], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, _ = program.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    failed = [line for line in output.splitlines() if line.startswith("FAIL")]
    assert (program.returncode, failed) == (0, []), output
