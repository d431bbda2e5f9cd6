"""What each client of the Service Bus emulator could do, step by step, for the table that `servicebus_table.py` prints.

A test says with the mark `step` what it shows: `@pytest.mark.step("defer")`. A step passes when all of its tests ran and
passed. The results of a run of a suite replace those of the one before, one file per client; suites in other languages
write the same.
"""

import json
from pathlib import Path

from server_process import INTEROP

FOLDER = INTEROP.parent.parent / "target" / "interop" / "servicebus-table"
NOT_IN_THE_SDK = "not in the SDK"

# In the order of the table. What only one client can show comes last, under a name that its suite chose.
STEPS = """
single-send batch-send peek complete abandon-with-properties dead-letter-with-reason dead-letter-queue defer schedule
cancel-scheduled renew-lock lock-lost receive-and-delete topic-fan-out sql-filter-and-action correlation-filter forwarding
duplicate-detection time-to-live session-named session-next session-state session-lock transactions large-message
hundred-receivers reconnect-after-kill rules types-round-trip rest-to-amqp amqp-to-rest unknown-entity bad-key
message-too-large admin-entities admin-rules
""".split()


class Client:
    """One client's column. That of an SDK has every step, and one that no test ran for is a failure."""

    def __init__(self, client: str, version: str, steps=(), not_in_the_sdk=(), notes=()):
        self.client = client
        self.version = version
        self.expected = list(steps)
        not_in_the_sdk = dict(not_in_the_sdk)
        self.steps = dict.fromkeys(not_in_the_sdk, NOT_IN_THE_SDK)
        self.notes = {**dict(notes), **not_in_the_sdk}

    def record(self, step: str, passed: bool):
        assert self.steps.get(step) != NOT_IN_THE_SDK, f"{step} is said not to be in the SDK"
        if self.steps.get(step) != "fail":
            self.steps[step] = "pass" if passed else "fail"

    def write(self, name: str):
        FOLDER.mkdir(parents=True, exist_ok=True)
        steps = {step: self.steps.get(step, "fail") for step in [*self.expected, *self.steps]}
        column = {"client": self.client, "version": self.version, "steps": steps, "notes": self.notes}
        Path(FOLDER / f"{name}.json").write_text(json.dumps(column, indent=2) + "\n")
