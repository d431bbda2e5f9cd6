"""What each client of the local Service Bus could do, step by step, for the table that `servicebus_table.py` prints.

A test says with the mark `step` what it shows: `@pytest.mark.step("defer")`. A step passes when all of its tests, which
are in one suite, pass. There is one file per client; each suite puts its steps into it. Suites in other languages write
the same.
"""

import json
from importlib.metadata import version

from server_process import INTEROP, MODULES

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
    """One client's column. That of an SDK has every step; one that no test has run for is a failure."""

    def __init__(self, name: str, version, steps=(), not_in_the_sdk=(), notes=()):
        self.name = name
        # A function: not every suite has every client installed.
        self.version = version
        self.expected = list(steps)
        self.not_in_the_sdk = dict(not_in_the_sdk)
        self.notes = {**dict(notes), **self.not_in_the_sdk}
        self.steps: dict[str, str] = {}

    def record(self, step: str, passed: bool):
        assert step not in self.not_in_the_sdk, f"{step} is said not to be in the SDK"
        if self.steps.get(step) != "fail":
            self.steps[step] = "pass" if passed else "fail"

    def write(self, file):
        version = self.version()
        before = json.loads(file.read_text()) if file.exists() else {}
        steps = {
            **dict.fromkeys(self.expected, "fail"),
            **(before["steps"] if before.get("version") == version else {}),
            **self.steps,
            **dict.fromkeys(self.not_in_the_sdk, NOT_IN_THE_SDK),
        }
        column = {"client": self.name, "version": version, "steps": steps, "notes": self.notes}
        file.write_text(json.dumps(column, indent=2) + "\n")


def write_results():
    """Leaves what the tests of this run recorded."""
    for name, client in CLIENTS.items():
        if client.steps:
            FOLDER.mkdir(parents=True, exist_ok=True)
            client.write(FOLDER / f"{name}.json")


def python_client(package: str) -> Client:
    administration = (
        "the administration clients have `https://` built in, whatever the connection string says; "
        "a transport, as azure-core lets one be given, sends their requests over plain HTTP"
    )
    return Client(
        package,
        lambda: version("azure-servicebus"),
        STEPS,
        not_in_the_sdk={
            "transactions": "azure-servicebus has no transactions",
            "rules": "azure-servicebus knows rules through its administration client only",
        },
        notes={
            "abandon-with-properties": "abandon_message takes no properties to change; the rest of the step is shown",
            "admin-entities": administration,
            "admin-rules": administration,
        },
    )


def installed_version(module: str) -> str:
    return json.loads((MODULES / module / "package.json").read_text())["version"]


# By the names of their files.
CLIENTS = {
    "python-sync": python_client("azure-servicebus"),
    "python-async": python_client("azure-servicebus.aio"),
    "rhea": Client("rhea", lambda: installed_version("rhea")),
}
