#!/usr/bin/env python3
"""How much the Service Bus emulator takes from `azure-servicebus`, durability on, and in how much memory.

It is measured on one machine that runs both, so that the numbers say as much about the client as about the emulator:
they are for comparing one build with another. Not a test, and no part of the gate.

    SERVICEBUS_EMULATOR_BIN=target/release/servicebus-emulator target/interop/venv/bin/python tests/interop/bench_servicebus.py
"""

import argparse
import time
from importlib.metadata import version

from azure.servicebus import ServiceBusClient, ServiceBusMessage

from servicebus_emulator import ServicebusEmulator

QUEUE = "load"
BODY = bytes(100)
BATCH = 100


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--messages", type=int, default=2_000, help="sent one by one, and received")
    arguments.add_argument("--batched", type=int, default=50_000, help="sent in batches of 100")
    arguments = arguments.parse_args()
    started = time.perf_counter()
    with ServicebusEmulator() as emulator:
        print(f"azure-servicebus {version('azure-servicebus')} (synchronous), bodies of {len(BODY)} bytes, durable")
        print(f"ready after {1000 * (time.perf_counter() - started):.0f} ms, {memory(emulator)} idle")
        print(f"{'':<24}{'messages':>10}{'per second':>12}{'memory':>12}")
        with ServiceBusClient.from_connection_string(emulator.connection_string) as client:
            with client.get_queue_sender(QUEUE) as sender:
                measure(emulator, "send one by one", arguments.messages, lambda: send_each(sender, arguments.messages))
                measure(emulator, "send in batches", arguments.batched, lambda: send_batches(sender, arguments.batched))
            with client.get_queue_receiver(QUEUE, prefetch_count=BATCH) as receiver:
                measure(
                    emulator,
                    "receive and complete",
                    arguments.messages,
                    lambda: receive(receiver, arguments.messages),
                )


def measure(emulator: ServicebusEmulator, what: str, messages: int, work):
    started = time.perf_counter()
    work()
    per_second = messages / (time.perf_counter() - started)
    print(f"{what:<24}{messages:>10,}{per_second:>12,.0f}{memory(emulator):>12}")


def memory(emulator: ServicebusEmulator) -> str:
    return f"{emulator.resident_kilobytes() / 1024:.1f} MiB"


def send_each(sender, count: int):
    for _ in range(count):
        sender.send_messages(ServiceBusMessage(BODY))


def send_batches(sender, count: int):
    for _ in range(count // BATCH):
        sender.send_messages([ServiceBusMessage(BODY) for _ in range(BATCH)])


def receive(receiver, count: int):
    while count > 0:
        messages = receiver.receive_messages(min(count, BATCH), max_wait_time=10)
        assert messages, f"{count} messages never came"
        for message in messages:
            receiver.complete_message(message)
        count -= len(messages)


if __name__ == "__main__":
    main()
