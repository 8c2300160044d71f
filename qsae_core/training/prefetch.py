"""The training batches of a run, read in the background while the step before them is computed.

This can pay where reading and training do not want the same cores, so ``auto`` reads ahead while a GPU
trains, as far as the source says (which is reasoned, not measured). Where the cores train, it costs. On two
of them, thousands of tokens/s with 0, 1 and 2 batches ahead: built-in language model 29.0, 22.6, 22.7;
``tensors`` from a 900 MB file 21.7, 19.1, 18.6 (19.7 and, with 2 ahead, 17.1 where it is not in the page
cache); ``synthetic`` 69.1, 49.7, 50.5. Each thread has torch's threads of its own, which then wait for each
other: 1.6 cores are busy instead of 2.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import torch

from qsae_core.contracts.data import Batch, DataSource


def batches_ahead(setting: int | Literal["auto"], source: DataSource, device: str) -> int:
    """What ``train.prefetch`` comes to for a source and the device that trains."""
    if setting != "auto":
        return setting
    return source.prefetch if torch.device(device).type == "cuda" else 0


class _Closed(BaseException):
    """Raised in the middle of a batch that nobody waits for any more."""


class BatchReader:
    """Hands out the next batches of a source, ``ahead`` of which one thread reads while the caller computes.

    The batches and their order are those of the source, and so is an exception: it is raised, with its own
    traceback, in place of the batch that it stands for. From the first batch until ``close`` the source
    belongs to the reader, and nobody else may use it outside of ``paused``. Then it stands right behind the
    last batch that was handed out, as if nothing had been read ahead. The thread computes with as many cores
    as the caller's.

    Args:
        source: where batches come from.
        size: vectors of each batch.
        count: how many batches will be taken; not one more is read.
        ahead: batches that wait, at most, besides the one handed out; 0: no thread, each is read when it is
            asked for.
        device: where the batches are wanted.
    """

    def __init__(
        self, source: DataSource, *, size: int, count: int, ahead: int, device: str | torch.device = "cpu"
    ) -> None:
        self._source, self._size, self._device = source, size, device
        self._unread, self._ahead = count, ahead
        self._state = source.state_dict()
        self._waiting: collections.deque[Future[tuple[Batch, dict[str, Any]]]] = collections.deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qsae-prefetch") if ahead else None
        self._turn = threading.Lock()  # whoever has it may use the source
        self._lock = threading.Lock()  # guards the two below
        self._closed = False
        self._reading: int | None = None

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next_batch(self) -> Batch:
        """The next batch, on the device.

        Raises:
            DataError: or whatever else the source raised in place of this batch.
        """
        if self._thread is None:
            batch, self._state = self._take()
            return batch
        while self._unread and len(self._waiting) <= self._ahead:
            self._waiting.append(self._thread.submit(self._read))
            self._unread -= 1
        batch, self._state = self._waiting[0].result()
        self._waiting.popleft()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The source's state right behind the last batch that was handed out."""
        return self._state

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block in which the source is the caller's, who leaves its training stream where it is; the batch
        that is read now is waited for."""
        with self._turn:
            yield

    def close(self) -> None:
        """End the thread, in the middle of a batch if need be, and put the source back to ``state_dict``."""
        with self._lock:
            self._closed = True
            if self._reading is not None:
                _raise_in(self._reading, _Closed)
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        if self._waiting:
            self._waiting.clear()
            self._source.load_state_dict(self._state)

    def _take(self) -> tuple[Batch, dict[str, Any]]:
        with self._turn:
            batch = self._source.next_batch(self._size).to(self._device)
            return batch, self._source.state_dict()

    # --- in the thread

    def _read(self) -> tuple[Batch, dict[str, Any]]:
        with self._until_closed():
            return self._take()

    @contextlib.contextmanager
    def _until_closed(self) -> Iterator[None]:
        """What ``close`` may cut off; behind an exception nothing more is read either."""
        with self._lock:
            if self._closed:
                raise _Closed
            self._reading = threading.get_ident()
        try:
            yield
        except BaseException:
            self._closed = True
            raise
        finally:
            with self._lock:
                self._reading = None


def _raise_in(thread: int, exception: type[BaseException]) -> None:
    """Raise an exception in another thread, as Ctrl-C does in the main one.

    A language model can take a minute for a batch, and has no other way to be told to stop.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(exception))
