"""The clients of `azure-servicebus`, so that every step is written once and runs with both.

The asynchronous client is used as it is. The calls of the synchronous one are made on threads, as a program with many
receivers makes them, and awaited; nothing else comes between a step and the SDK.
"""

import asyncio
import concurrent.futures
import functools
import gc
import warnings
from datetime import UTC, datetime, timedelta

import azure.servicebus
import azure.servicebus.aio
import azure.servicebus.aio.management
import azure.servicebus.management
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport
from azure.servicebus import ServiceBusReceivedMessage

from loopback import PATIENCE_SECONDS
from servicebus_emulator import ServicebusEmulator

MINUTE = timedelta(minutes=1)
# The entities' own, as `servicebus.json` names none.
TIME_TO_LIVE = timedelta(hours=1)
# What is measured on two sides of a socket of a loaded machine.
SLACK = timedelta(seconds=5)
# More than the receivers that any step has at a time.
THREADS = 128
# These return an object of the SDK and send nothing.
AT_ONCE = {
    "get_queue_receiver",
    "get_queue_sender",
    "get_subscription_receiver",
    "get_topic_sender",
    "list_queue_sessions",
    "list_queues",
    "list_queues_runtime_properties",
    "list_rules",
    "list_subscriptions",
    "list_topics",
}


class Awaited:
    """An object of the synchronous SDK that is used as its asynchronous twin is."""

    def __init__(self, inner, threads: concurrent.futures.Executor):
        self._inner = inner
        self._threads = threads

    def _run(self, function, *arguments, **options):
        call = functools.partial(function, *arguments, **options)
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    def __getattr__(self, name: str):
        member = getattr(self._inner, name)
        if name == "session":
            return Awaited(member, self._threads)
        if not callable(member):
            return member
        if name in AT_ONCE:
            return lambda *arguments, **options: Awaited(member(*arguments, **options), self._threads)
        return functools.partial(self._run, member)

    async def __aenter__(self):
        await self._run(self._inner.__enter__)
        return self

    async def __aiter__(self):
        end = object()
        items = await self._run(iter, self._inner)
        while (item := await self._run(next, items, end)) is not end:
            yield item


class PlainHttp(RequestsTransport):
    """The administration clients have `https://` built in, whatever the connection string says."""

    def send(self, request, **options):
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **options)


class AsyncPlainHttp(AsyncioRequestsTransport):
    async def send(self, request, **options):
        request.url = request.url.replace("https://", "http://", 1)
        return await super().send(request, **options)


class Bus:
    """One client of one emulator; what was opened through it is closed with it."""

    def __init__(self, sdk: str, emulator: ServicebusEmulator):
        self.emulator = emulator
        self.is_sync = sdk == "python-sync"
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._links = []
        self._clients = []
        self.client = self.another_client()

    def _face(self, sync, asynchronous):
        return Awaited(sync(), self._threads) if self.is_sync else asynchronous()

    def another_client(self, connection_string: str = "", **options):
        # Without retries, so that none hides a fault.
        arguments = connection_string or self.emulator.connection_string
        options = {"retry_total": 0, **options}
        client = self._face(
            lambda: azure.servicebus.ServiceBusClient.from_connection_string(arguments, **options),
            lambda: azure.servicebus.aio.ServiceBusClient.from_connection_string(arguments, **options),
        )
        self._clients.append(client)
        return client

    def administration(self):
        connection_string = self.emulator.connection_string
        sync, asynchronous = azure.servicebus.management, azure.servicebus.aio.management
        client = self._face(
            lambda: sync.ServiceBusAdministrationClient.from_connection_string(
                connection_string, transport=PlainHttp(), retry_total=0
            ),
            lambda: asynchronous.ServiceBusAdministrationClient.from_connection_string(
                connection_string, transport=AsyncPlainHttp(), retry_total=0
            ),
        )
        self._clients.append(client)
        return client

    def lock_renewer(self):
        """For a receiver; what it receives is then locked until it is settled."""
        renewer = self._face(azure.servicebus.AutoLockRenewer, azure.servicebus.aio.AutoLockRenewer)
        self._clients.append(renewer)
        return renewer._inner if self.is_sync else renewer

    def sender(self, entity: str, client=None):
        sender = (client or self.client).get_queue_sender(entity)
        self._links.append(sender)
        return sender

    def topic_sender(self, topic: str):
        sender = self.client.get_topic_sender(topic)
        self._links.append(sender)
        return sender

    def receiver(self, entity: str, client=None, **options):
        """Of a queue, or of a subscription, which is written topic/name."""
        client = client or self.client
        topic, slash, subscription = entity.partition("/")
        if slash:
            receiver = client.get_subscription_receiver(topic, subscription, **options)
        else:
            receiver = client.get_queue_receiver(entity, **options)
        self._links.append(receiver)
        return receiver

    def dead_letters(self, entity: str):
        return self.receiver(entity, sub_queue="deadletter")

    async def close(self):
        # Each synchronous link waits for a thread of its own for up to a second; together they wait once.
        await asyncio.gather(*(link.close() for link in self._links))
        for client in self._clients:
            await client.close()
        self._threads.shutdown()
        # The SDK leaves what a refusal left behind to the garbage collector; here is where that does not matter.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del self._links, self._clients, self.client
            gc.collect()


def now() -> datetime:
    """As exact as AMQP, whose timestamps are whole milliseconds."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


async def until(time: datetime):
    """Waits for something that the service does at a time and no client is told of."""
    await asyncio.sleep(max(0.0, (time - now()).total_seconds()))


async def open_all(*links):
    """Attaches links; otherwise the first use of each does so, out of its own time."""
    await asyncio.gather(*(link.__aenter__() for link in links))


async def take(receiver, count: int = 1) -> list[ServiceBusReceivedMessage]:
    """That many messages, however the client cuts them into batches."""
    messages = []
    while len(messages) < count:
        batch = await receiver.receive_messages(count - len(messages), max_wait_time=PATIENCE_SECONDS)
        assert batch, f"waited {PATIENCE_SECONDS} s for message {len(messages) + 1} of {count}"
        messages += batch
    return messages


async def take_one(receiver) -> ServiceBusReceivedMessage:
    [message] = await take(receiver)
    return message


async def everything_in(receiver) -> list[ServiceBusReceivedMessage]:
    """All that is there, without taking it: the active, locked, deferred and scheduled ones."""
    return await receiver.peek_messages(250, sequence_number=1)


async def assert_empty(receiver):
    assert bodies(await everything_in(receiver)) == []


def body(message: ServiceBusReceivedMessage) -> bytes:
    return b"".join(message.body)


def bodies(messages: list[ServiceBusReceivedMessage]) -> list[bytes]:
    return [body(message) for message in messages]
