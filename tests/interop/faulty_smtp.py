"""An SMTP server on aiosmtpd (PyPI) that fails as it is told to, in a thread of this process."""

import asyncio
import threading
from dataclasses import dataclass, field

from aiosmtpd.smtp import SMTP

OK = "250 OK"


@dataclass
class FaultySmtp:
    """A running server. Faults stay until they are taken away, so that it does not matter how often a client tries."""

    # What RCPT and DATA are answered, and what follows the last byte of a message instead of an answer.
    rcpt: str = OK
    data: str = OK
    drop_after_data: bool = False
    hang_after_data: bool = False
    # The messages that got their 250, and how many clients reached the end of theirs.
    taken: list[bytes] = field(default_factory=list)
    ends_of_data: int = 0

    def recover(self):
        self.rcpt = self.data = OK
        self.drop_after_data = self.hang_after_data = False

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_RCPT(self, _server, _session, envelope, address, options):
        if self.rcpt == OK:
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        return self.rcpt.replace("{address}", address)

    async def handle_DATA(self, server, _session, envelope):
        self.ends_of_data += 1
        if self.drop_after_data:
            server.transport.abort()
            raise ConnectionResetError
        if self.hang_after_data:
            # Until the client goes away, at which aiosmtpd cancels this.
            await asyncio.Event().wait()
        if self.data == OK:
            self.taken.append(envelope.content)
        return self.data.replace("{address}", envelope.rcpt_tos[0])

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="faulty-smtp")
        self.thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self.loop)
        self.port = listening.result()
        return self

    async def _listen(self) -> int:
        self.server = await self.loop.create_server(
            lambda: SMTP(self, hostname="mail.example", loop=self.loop), "127.0.0.1", 0
        )
        return self.server.sockets[0].getsockname()[1]

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _close(self):
        self.server.close()
        conversations = asyncio.all_tasks() - {asyncio.current_task()}
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
