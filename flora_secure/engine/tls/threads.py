"""Threads of this engine: one that runs an event loop, and a few that make answers.

All are daemons, so that a process that is told to end at once does: a client's answer may take minutes of training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

T = TypeVar("T")
_LAST_TURNS = 4  # of a loop, in which sockets of connections that are aborted are closed


class LoopThread:
    """An event loop that runs in a thread of its own until it is closed."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `work` in the loop; its future can be waited for, or cancelled, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Cancel all that runs, end the thread and wait for it. A second call does nothing."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_end_all())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(_LAST_TURNS):
        await asyncio.sleep(0)


class Answerers:
    """A few threads that call functions, in the order in which they were asked to; they start when first needed."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"{threads} threads")
        self._most, self._threads = threads, list[Thread]()
        self._waiting: SimpleQueue[tuple[Future[bytes], Callable[[bytes], bytes], bytes] | None] = SimpleQueue()
        self._left, self._counting = 0, Lock()

    @property
    def busy(self) -> bool:
        """Whether an answer is being made, or waits to be."""
        return self._left > 0

    def ask(self, answer: Callable[[bytes], bytes], request: bytes) -> Future[bytes]:
        """What `answer(request)` gives, or raises; of one event loop only."""
        future: Future[bytes] = Future()
        with self._counting:
            self._left += 1
        future.add_done_callback(self._made)
        self._waiting.put((future, answer, request))
        if len(self._threads) < min(self._most, self._left):
            self._threads.append(Thread(target=self._work, name="flora-secure answers", daemon=True))
            self._threads[-1].start()
        return future

    def close(self) -> None:
        """End the threads, and wait for what they are at."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _made(self, _: Future[bytes]) -> None:
        with self._counting:
            self._left -= 1

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            future, answer, request = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                reply = answer(request)
            except BaseException as error:  # whoever asked gets it
                future.set_exception(error)
            else:
                future.set_result(reply)
            del task, future, answer, request  # an idle thread holds nobody's message
