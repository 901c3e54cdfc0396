"""Start of child processes, so that the parent unpickles nothing that comes from one."""

from __future__ import annotations

from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any

from pebble.common.types import Result, ResultStatus

LARGEST_RESULT = 1024 * 1024


class _EndOfWork:
    """The parent's end of pebble's own pipe: a message says that the child has ended its work, and is thrown away unread.

    The handler may write there what it likes: pebble would unpickle it, which runs code. How the handler ended comes by another pipe.
    """

    def __init__(self, reader: Connection) -> None:
        self._reader = reader

    def poll(self, timeout: float) -> bool:
        return self._reader.poll(timeout)

    def recv(self) -> Result[None]:
        self._reader.recv_bytes(LARGEST_RESULT)
        return Result(ResultStatus.SUCCESS, None)

    def close(self) -> None:
        self._reader.close()


class _Spawning(SpawnContext):
    def Pipe(self, duplex: bool = True) -> Any:  # noqa: N802, FBT001, FBT002 - multiprocessing's names
        reader, writer = super().Pipe(duplex)
        return (reader, writer) if duplex else (_EndOfWork(reader), writer)


def spawning_context() -> SpawnContext:
    """Return the context that pebble starts a child with."""
    return _Spawning()
