"""How a site answers behind any engine: never by an exception, and one process at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from flora_protocols import ProtocolError
from flora_secure.client.client import code_of
from flora_secure.client.store import FileStore
from flora_secure.errors import InputError, RefusalError, RunFolderError, first_line
from flora_secure.rounds.reply import FAILED, encode_refusal, encode_reply

_WAIT = 10.0  # seconds for another process of the same site, which answers another message


def enveloped(answer: Callable[[], bytes], log: Callable[[str], None]) -> bytes:
    """What `answer` gives, as `rounds.reply` writes it, or a code in its place; nothing is raised.

    Whatever goes wrong is said to `log`, which stays at the site, and its code alone to the server.
    """
    try:
        return encode_reply(answer())
    except (RefusalError, ProtocolError) as error:
        code = code_of(error)
        log(f"refused ({code}): {error}")
        return encode_refusal(code)
    except (InputError, OSError) as error:
        log(f"failed: {first_line(error)}")
    except Exception as error:  # whatever it is, its text must not leave, and the next message may be answered
        log(f"failed: {type(error).__name__}: {first_line(error)}")
    return encode_refusal(FAILED)


def store_in(folder: Path) -> FileStore:
    """The client's store in a folder; waits a little for another process that is at a message of its own.

    Raises RunFolderError where that one does not end, and as `FileStore`.
    """
    end = time.monotonic() + _WAIT
    while True:
        try:
            return FileStore(folder)
        except RunFolderError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
