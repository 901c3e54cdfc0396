"""A TCP proxy that misbehaves on demand: refuses, resets, hangs, goes silent, is slow, or swallows one answer and cuts.

Before a PostgreSQL server it also knows which statement a client sends, prepared ones too, so that trouble can begin at one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST
STARTUP = 196608  # version 3.0 of the protocol, as the first message of a session says
SLOWNESS = 1.0  # seconds that a slow network holds each piece back

Trouble = Literal["silent", "all silent", "half-closed", "reset", "slow"]
"""What a connection does from a statement on: `silent` stays open and forwards nothing, new connections work; `all silent` as well for those
that were open; `half-closed` ends the stream to the client and keeps its own open; `slow` holds back all there is until `heal`."""


class Statements:
    """The statements in what one client sends, by the messages of PostgreSQL's protocol; feed it every byte."""

    def __init__(self) -> None:
        self._bytes = b""
        self._begun = False
        self._prepared: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The text of each statement that these bytes complete the execution of."""
        self._bytes += data
        while (message := self._next()) is not None:
            kind, body = message
            if kind == b"Q":
                yield body.rstrip(b"\0")
            elif kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text
            elif kind == b"B":
                _, name, _ = body.split(b"\0", 2)
                yield self._prepared.get(name, b"")

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._begun else 0
        if len(self._bytes) < head + 4:
            return None
        (length,) = struct.unpack_from("!I", self._bytes, head)
        end = head + length
        if len(self._bytes) < end:
            return None
        kind, body, self._bytes = self._bytes[:head], self._bytes[head + 4 : end], self._bytes[end:]
        if not self._begun:
            self._begun = struct.unpack_from("!I", body)[0] == STARTUP  # before it, requests for encryption
        return kind, body


@dataclass(eq=False)
class Pair:
    """One client's connection and ours to the server for it."""

    to_client: asyncio.StreamWriter
    to_server: asyncio.StreamWriter
    statements: Statements = field(default_factory=Statements)
    silent: bool = False
    lost: bool = False
    """Silent, and neither side learns that the other has gone."""
    swallow: bool = False


class Proxy:
    """Stands before `port` on loopback at `self.port`. `mode`: pass, refuse or hang; may be set by any thread."""

    def __init__(self, port: int) -> None:
        self.mode = "pass"
        self.cuts = 0
        self.seen: dict[str, int] = {}
        """How often each statement came, without its values' places."""
        self.begun = threading.Event()
        """Set when the trouble that was asked for has begun."""
        self._to = port
        self.silenced = 0
        """How often a connection fell silent at a request."""
        self._cut_after: tuple[bytes, ...] = ()
        self._silent_at = -1
        self._silent_towards = "server"
        self._trouble: tuple[Trouble, re.Pattern[str]] | None = None
        self._slow = False
        self._pairs: set[Pair] = set()
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
        self._loop.call_soon_threadsafe(self._silence_all)

    def trouble_at(self, statement: str, trouble: Trouble) -> None:
        """Let this trouble begin at the next statement that the regular expression finds; the statement does not get through."""
        self.begun.clear()
        self._trouble = (trouble, re.compile(statement, re.DOTALL))

    def heal(self) -> None:
        """End what can end: no connection is slow any more, and no trouble waits. What is silent stays so, as a lost peer does."""
        self._trouble = None
        self._slow = False

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            _reset(to_client)
            return
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:  # the server is away, and so are we
            _reset(to_client)
            return
        pair = Pair(to_client, to_server)
        self._pairs.add(pair)
        pumps = [
            asyncio.create_task(self._pump(client, to_server, pair, from_client=True)),
            asyncio.create_task(self._pump(server, to_client, pair, from_client=False)),
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        _reset(to_client)
        _reset(to_server)
        self._pairs.discard(pair)

    async def _pump(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, pair: Pair, *, from_client: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                while self.mode == "hang":  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0.02)
                if from_client and not self._let_through(data, pair):
                    return
                if from_client and self._is_time_for_silence():
                    self.silenced += 1
                    if self._silent_towards == "client":
                        to.write(data)
                    pair.silent = True
                if pair.silent:
                    continue  # read, so that the sender sees its bytes acknowledged
                if self._slow:
                    await asyncio.sleep(SLOWNESS)
                if from_client and self._cut_after and all(word in data for word in self._cut_after):
                    self._cut_after = ()
                    pair.swallow = True
                elif not from_client and pair.swallow:
                    self.cuts += 1
                    return
                to.write(data)
                await to.drain()
            while pair.lost:  # noqa: ASYNC110 - until the proxy ends
                await asyncio.sleep(0.02)
        except (OSError, asyncio.IncompleteReadError):
            return

    def _let_through(self, data: bytes, pair: Pair) -> bool:
        """Look at what a client sends, and begin the trouble if it waits for that; False if the connection is to be reset."""
        for statement in pair.statements.feed(data):
            text = " ".join(statement.decode(errors="replace").split())
            self.seen[text] = self.seen.get(text, 0) + 1
            if self._trouble is not None and self._trouble[1].search(text):
                trouble, self._trouble = self._trouble[0], None
                self._begin(trouble, pair)
                self.begun.set()
                return trouble != "reset"
        return True

    def _begin(self, trouble: Trouble, pair: Pair) -> None:
        if trouble == "silent":
            pair.silent = pair.lost = True
        elif trouble == "all silent":
            self._silence_all()
            for one in self._pairs:
                one.lost = True
        elif trouble == "half-closed":
            pair.to_client.write_eof()
            pair.silent = pair.lost = True
        elif trouble == "slow":
            self._slow = True

    def _silence_all(self) -> None:
        for pair in self._pairs:
            pair.silent = True

    def _is_time_for_silence(self) -> bool:
        self._silent_at -= 1
        return self._silent_at == -1

    async def _reset_all(self) -> None:
        for pair in self._pairs:
            _reset(pair.to_client)
            _reset(pair.to_server)

    async def _close(self) -> None:
        self._server.close()
        await self._reset_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: Any = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
