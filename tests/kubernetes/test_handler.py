"""The handler starts with the example's settings, as a pod and as Container Apps would give them. `ORDERUP_BIN` names it; without
it these are skipped, because building it is not this folder's business."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from conftest import EXAMPLE
from test_settings import secret_variables

pytestmark = pytest.mark.skipif("ORDERUP_BIN" not in os.environ, reason="ORDERUP_BIN names no handler")

# What Entra's webhook adds to a pod that has the label.
WORKLOAD = {
    "AZURE_CLIENT_ID": "11111111-1111-1111-1111-111111111111",
    "AZURE_TENANT_ID": "33333333-3333-3333-3333-333333333333",
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
}
# What main.bicep sets in its place.
MANAGED = {
    "AZURE_CLIENT_ID": "11111111-1111-1111-1111-111111111111",
    "AzureWebJobsStorage__credential": "managedidentity",
    "AzureWebJobsStorage__clientId": "11111111-1111-1111-1111-111111111111",
    "ServiceBusConnection__credential": "managedidentity",
    "ServiceBusConnection__clientId": "11111111-1111-1111-1111-111111111111",
}


def secrets(manifests) -> dict[str, str]:
    """Made up, in the form that each must have."""
    values = {name: "x" * 40 for name in secret_variables(manifests)}
    return values | {"BAKERY_SECRET": "whsec_" + "c2FtcGxlIG9mIGJha2VyeSwgbm90IGEgc2VjcmV0ISE="}


def start(environment: dict[str, str]) -> tuple[subprocess.Popen, int]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    environment = environment | {
        # The mount is the pod's.
        "VENDORS_FILE": str(EXAMPLE / "vendors.json"),
        "FUNCTIONS_CUSTOMHANDLER_PORT": str(port),
    }
    process = subprocess.Popen(
        [os.environ["ORDERUP_BIN"]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return process, port


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize("identity", [WORKLOAD, MANAGED], ids=["workload", "managed"])
def test_it_starts_with_the_settings_of_a_pod_and_ends_at_sigterm(manifests, settings, identity):
    process, port = start(settings | secrets(manifests) | identity)
    try:
        deadline = time.monotonic() + 30
        while not answers(port):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        log = process.stdout.read()
        assert '"level":"ERROR"' not in log, log
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["SQUARE_ACCESS_TOKEN", "BAKERY_SECRET"])
def test_it_names_a_secret_that_is_not_there(manifests, settings, name):
    environment = settings | secrets(manifests) | WORKLOAD
    del environment[name]
    process, _ = start(environment)
    try:
        log, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert name in log
