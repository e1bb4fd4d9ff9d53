"""A client's answer as it leaves: its message or a code, and never an exception."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from flora_protocols import ProtocolError
from flora_secure.client.client import code_of
from flora_secure.errors import InputError, RefusalError, first_line
from flora_secure.rounds.reply import FAILED, encode_refusal, encode_reply


def enveloped(answer: Callable[[bytes], bytes], message: bytes, log: Callable[[str], None]) -> bytes:
    """What `answer` says to the message, as `rounds.reply` writes it.

    Whatever is raised is said to `log`, which stays at the client, and its code alone to the server.
    """

    def say(line: str) -> None:
        with suppress(Exception):  # a log that cannot be written tells nothing to the server either
            log(line)

    try:
        return encode_reply(answer(message))
    except (RefusalError, ProtocolError) as error:
        code = code_of(error)
        say(f"refused ({code}): {error}")
        return encode_refusal(code)
    except (InputError, OSError) as error:
        say(f"failed: {first_line(error)}")
    except Exception as error:  # whatever it is, its text must not leave, and the next message may be answered
        say(f"failed: {type(error).__name__}: {first_line(error)}")
    return encode_refusal(FAILED)
