"""What the tests start, all of it ended with its fixture, whatever happens.

The servers that are slow to start serve a module. The handler starts anew for each test, and so ends before them: with
a connection of its own still open, maildev would wait for it. A failed test shows what each running server printed during it.
"""

import asyncio
import contextlib
import inspect
import json
import signal
import sys

import pytest

from faulty_smtp import FaultySmtp
from maildev import Maildev
from orderup import Orderup
from prism import Prism
from server_process import ServerProcess
from servicebus_emulator import ServicebusEmulator
from servicebus_results import CLIENTS, write_results
from servicebus_sdk import Bus
from webhook_receiver import WebhookReceiver


def pytest_configure():
    # The time limit of `run` comes as SIGTERM. An interrupt ends the fixtures, and so the servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["runner"].run(pyfuncitem.obj(**arguments))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # A test's own setup and call belong together.
    if report.failed or call.when != "setup":
        for server in ServerProcess.running:
            output = server.output_since_last_shown()
            if report.failed:
                report.sections.append((f"what {server.name} printed", output or "(nothing)"))
    return report


def pytest_collection_modifyitems(items):
    # What a report of a test says of its steps also reaches the process that others run tests for.
    for item in items:
        for mark in item.iter_markers("step"):
            client = mark.kwargs.get("client") or item.callspec.params["sdk"]
            item.user_properties.append(("step", (mark.args[0], client)))


def pytest_runtest_logreport(report):
    if report.when == "call" or report.failed:
        for name, value in report.user_properties:
            if name == "step":
                step, client = value
                CLIENTS[client].record(step, report.passed)


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        write_results()


def pytest_keyboard_interrupt():
    # The test that was running gets no report, and its servers are still there.
    for server in ServerProcess.running:
        print(f"what {server.name} printed:\n{server.output_since_last_shown()}", file=sys.stderr)


@pytest.fixture
def start_orderup(tmp_path):
    """Starts a handler with the given settings and vendors, and ends it with the test."""
    with contextlib.ExitStack() as started:

        def start(settings: dict, vendors: list = ()):
            vendors_file = tmp_path / "vendors.json"
            vendors_file.write_text(json.dumps(list(vendors)))
            return started.enter_context(Orderup(settings, vendors_file))

        yield start


@pytest.fixture(scope="module")
def maildev():
    with Maildev() as maildev:
        yield maildev


@pytest.fixture
def faulty_smtp():
    with FaultySmtp() as smtp:
        yield smtp


@pytest.fixture
def receiver():
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def sendgrid():
    with Prism("sendgrid-mail-v3.json") as prism:
        yield prism


@pytest.fixture(scope="module")
def acs():
    with Prism("acs-email-2025-09-01.json") as prism:
        yield prism


@pytest.fixture
def servicebus():
    """A Service Bus with nothing in it; it starts in milliseconds, so that every test has its own."""
    with ServicebusEmulator() as emulator:
        yield emulator


@pytest.fixture
def runner():
    """The loop that a test which is a coroutine runs on, and its fixtures too."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["python-sync", "python-async"])
def sdk(request):
    return request.param


@pytest.fixture
def bus(sdk, servicebus, runner):
    bus = Bus(sdk, servicebus)
    yield bus
    runner.run(bus.close())
