"""The site's half: the functions of a ClientApp that answer the server's messages."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flora_secure.boundary.foreign import printable
from flora_secure.engine.flower.wire import ANSWER, FAILED, HELLO, number_packed, packed, unpacked
from flora_secure.errors import InputError, first_line

Answer = Callable[[bytes], bytes]
"""A message of the server to the envelope that is the client's reply; it never raises."""


def register(
    app: ClientApp,
    answering: Callable[[Context], Answer],
    numbered: Callable[[Context], int],
    log: Callable[[str], None],
) -> None:
    """Have `app` answer the server: with its client, and with its number of the enrolment.

    `answering` makes the client's `answer` for the process of one message, from what Flower knows of the site;
    `numbered` says which client of the enrolment the site is. Two messages may be answered at a time, in two
    processes, where the server's patience with the first was over: what the client keeps on disk it must lock.

    An exception would reach the server with its text. So whatever is raised ends here: the server has an empty reply,
    and `log`, which stays at the site, a line that says what and where. `context.state` is not used.
    """

    def secure(message: Message, context: Context) -> Message:
        return _replied(message, lambda request: answering(context)(request), log)

    def hello(message: Message, context: Context) -> Message:
        return _replied(message, lambda _: number_packed(numbered(context)), log)

    app.query(ANSWER)(secure)
    app.query(HELLO)(hello)


def _replied(message: Message, answer: Answer, log: Callable[[str], None]) -> Message:
    try:
        content = packed(answer(unpacked(message)))
    except Exception as error:  # Flower would send its text to the server
        content = packed(FAILED)
        _tell(log, error)
    return Message(content, reply_to=message)


def _tell(log: Callable[[str], None], error: Exception) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    what = first_line(error)
    if not isinstance(error, InputError):  # whose line says all that a person needs
        what = f"{type(error).__name__} at {where}: {what}"
    try:
        log(printable(f"the server had no answer: {what}"))
    except Exception:  # a log that cannot be written must not tell the server either
        return
