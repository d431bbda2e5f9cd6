"""What each client of the Service Bus emulator could do, step by step, for the table that `servicebus_table.py` prints.

A test says with the mark `step` what it shows: `@pytest.mark.step("defer")`. A step passes when all of its tests, which
are in one suite, pass. There is one file per client; each suite puts its steps into it. Suites in other languages write
the same.
"""

import json

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


# By the name of its file.
CLIENTS: dict[str, "Client"] = {}


class Client:
    """One client's column. That of an SDK has every step; one that no test has run for is a failure."""

    def __init__(self, name: str, client: str, version: str, steps=(), not_in_the_sdk=(), notes=()):
        CLIENTS[name] = self
        self.file = FOLDER / f"{name}.json"
        self.client = client
        self.version = version
        self.expected = list(steps)
        not_in_the_sdk = dict(not_in_the_sdk)
        self.steps = dict.fromkeys(not_in_the_sdk, NOT_IN_THE_SDK)
        self.notes = {**dict(notes), **not_in_the_sdk}
        self.was_here = False

    def record(self, step: str, passed: bool):
        self.was_here = True
        assert self.steps.get(step) != NOT_IN_THE_SDK, f"{step} is said not to be in the SDK"
        if self.steps.get(step) != "fail":
            self.steps[step] = "pass" if passed else "fail"

    def write(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        before = json.loads(self.file.read_text()) if self.file.exists() else {"version": self.version, "steps": {}}
        kept = before["steps"] if before["version"] == self.version else {}
        steps = {**dict.fromkeys(self.expected, "fail"), **kept, **self.steps}
        column = {"client": self.client, "version": self.version, "steps": steps, "notes": self.notes}
        self.file.write_text(json.dumps(column, indent=2) + "\n")
