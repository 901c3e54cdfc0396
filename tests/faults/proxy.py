"""A TCP proxy that misbehaves on demand: refuses, resets, hangs, falls silent, or swallows one answer and cuts."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import Any, Self

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class Proxy:
    """Stands before `port` on loopback at `self.port`. `mode`: pass, refuse or hang; may be set by any thread."""

    def __init__(self, port: int) -> None:
        self.mode = "pass"
        self.cuts = 0
        self._to = port
        self.silenced = 0
        self._cut_after: tuple[bytes, ...] = ()
        self._silent_at = -1
        self._silent_towards = "server"
        self._silent: set[asyncio.Event] = set()
        self._flows: set[asyncio.Event] = set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def set(self, mode: str) -> None:
        """From now on; `refuse` also resets what is connected."""
        self.mode = mode
        if mode == "refuse":
            asyncio.run_coroutine_threadsafe(self._reset_all(), self._loop).result()

    def cut_after(self, *words: bytes) -> None:
        """Forward the next request with these words, wait until the server has answered, and cut without passing that on."""
        self._cut_after = words

    def fall_silent_at(self, request: int, towards: str) -> None:
        """Let one connection fall silent at this request, 0 being the next one, for ever: it stays open and acknowledges.

        Silent towards `server` it does not pass on the request, towards `client` not the answer. Negative: never.
        """
        self._silent_at, self._silent_towards = request, towards

    def silence_all(self) -> None:
        """Let all connections that there are fall silent, in both directions; new ones work."""
        self._loop.call_soon_threadsafe(lambda: self._silent.update(self._flows))

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            _reset(to_client)
            return
        server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        pair = (to_client, to_server)
        self._pairs.add(pair)
        swallow = asyncio.Event()
        self._flows.add(swallow)
        pumps = [
            asyncio.create_task(self._pump(client, to_server, None, swallow)),
            asyncio.create_task(self._pump(server, to_client, swallow, swallow)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for writer in pair:
            _reset(writer)
        self._pairs.discard(pair)
        self._flows.discard(swallow)

    async def _pump(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, answers: Any, swallow: asyncio.Event
    ) -> None:
        try:
            while data := await source.read(65536):
                while self.mode == "hang":  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0.02)
                if answers is None and self._is_time_for_silence():
                    self.silenced += 1
                    if self._silent_towards == "client":
                        to.write(data)
                    self._silent.add(swallow)
                if swallow in self._silent:
                    continue  # read, so that the sender sees its bytes acknowledged
                if answers is None and self._cut_after and all(word in data for word in self._cut_after):
                    self._cut_after = ()
                    swallow.set()
                elif answers is not None and answers.is_set():
                    self.cuts += 1
                    return
                to.write(data)
                await to.drain()
        except (OSError, asyncio.IncompleteReadError):
            return

    def _is_time_for_silence(self) -> bool:
        self._silent_at -= 1
        return self._silent_at == -1

    async def _reset_all(self) -> None:
        for pair in self._pairs:
            for writer in pair:
                _reset(writer)

    async def _close(self) -> None:
        self._server.close()
        await self._reset_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
