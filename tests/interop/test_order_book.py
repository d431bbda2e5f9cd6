"""The order book in Azurite: each test of `tests/it/azurite.rs`, which starts an Azurite of its own and also ends it."""

import json
import os
import subprocess

import pytest

from azurite import COMMAND
from server_process import node_environment

TESTS = os.environ["ORDERUP_TESTS"]


def listed() -> list[str]:
    names = subprocess.run(
        [TESTS, "--list", "--ignored", "azurite::"], check=True, capture_output=True, text=True
    ).stdout
    return [line.removesuffix(": test") for line in names.splitlines() if line.endswith(": test")]


NAMES = listed()


def test_there_are_tests():
    assert len(NAMES) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_azurite(name, tmp_path):
    environment = node_environment() | {
        "ORDERUP_TEST_AZURITE": json.dumps(COMMAND),
        # Azurite's data goes with the test, even when that is killed.
        "TMPDIR": str(tmp_path),
    }
    ended = subprocess.run(
        [TESTS, name, "--exact", "--ignored", "--nocapture"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout, ended.stdout
