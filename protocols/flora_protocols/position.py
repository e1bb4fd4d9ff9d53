"""A position: one party at one point of the protocol, holding only what exists there.

A transition checks everything first and returns the next position and the bytes to send; then the position is *spent*:
it forgets its contents and raises when it is used again. A transition that raises leaves its position as it was.

So it is between threads, too: whoever asks for a transition while another thread makes one is refused at once, whether
or not that one will succeed. What a server is given meanwhile waits its turn, for no message may be lost.

And between processes: a fork copies every position, and both copies could answer. A position belongs to the process
that made it, and refuses in any other, whether or not it has moved at home; to move house, it is dumped and loaded.

Python can neither erase memory nor compute in constant time: forgetting means dropping the reference. Copying or
pickling a position would allow a second answer in one session, so both raise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from flora_protocols.errors import Code, MisuseError

S = TypeVar("S", bound="Position")
A = ParamSpec("A")
R = TypeVar("R")


class Position:
    """Base of all positions. `_name` is all that `repr` shows."""

    _name: str

    def __init__(self, name: str) -> None:
        self._name = name
        self._claim = Lock()  # held by the one transition that may be under way
        self._turn = Lock()  # held by whatever reads or changes the contents
        self._home = os.getpid()

    @property
    def spent(self) -> bool:
        """Whether this position has made its transition."""
        return "_spent" in vars(self)

    def _at_home(self, doing: str) -> None:
        """MisuseError in a forked process. Asked before any lock is taken: what another thread held in the moment of
        the fork is held for ever in the copy."""
        if os.getpid() != self._home:
            raise MisuseError(
                f"{self!r} cannot {doing} here: it belongs to the process it was made in, from which this one was "
                "forked, and may answer only there; dump it there and load it here",
                Code.SPENT,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}{' (spent)' if self.spent else ''}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise MisuseError(f"{self!r} cannot be copied or pickled: it may answer only once")


def fresh(method: Callable[Concatenate[S, A], R]) -> Callable[Concatenate[S, A], R]:
    """Decorates what only an unspent position can do, one call after another."""

    @wraps(method)
    def checked(self: S, /, *args: A.args, **kwargs: A.kwargs) -> R:
        self._at_home(method.__name__)
        with self._turn:
            if self.spent:
                raise MisuseError(
                    f"{self!r} cannot {method.__name__} again; go on with the position that it returned", Code.SPENT
                )
            return method(self, *args, **kwargs)

    return checked


def transition(method: Callable[Concatenate[S, A], R]) -> Callable[Concatenate[S, A], R]:
    """Decorates a transition: if it returns, the position is spent and its contents forgotten.

    It claims the position before it looks at anything, and gives the claim back whether it returns or raises.
    """

    @fresh
    @wraps(method)
    def move(self: S, /, *args: A.args, **kwargs: A.kwargs) -> R:
        result = method(self, *args, **kwargs)
        # At once, not name by name: another thread may be looking.
        kept = {name: getattr(self, name) for name in ("_name", "_claim", "_turn", "_home")}
        self.__dict__ = kept | {"_spent": True}
        return result

    @wraps(method)
    def once(self: S, /, *args: A.args, **kwargs: A.kwargs) -> R:
        self._at_home(method.__name__)
        if not self._claim.acquire(blocking=False):
            raise MisuseError(
                f"{self!r} cannot {method.__name__} now, it is in use by another thread; go on with the position "
                "returned there, and call this one again only if that raises",
                Code.SPENT,
            )
        try:
            return move(self, *args, **kwargs)
        finally:
            self._claim.release()

    return once
