"""What the checks of a transcript have met so far, and the findings that it makes in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from flora_secure.auditing.findings import VIOLATION, WARNING, Finding, Problem, Title, judged, unchecked

_MOST = 1 << 12  # problems of one check that are kept; a finding shows the first few


class Check(NamedTuple):
    """What a check finds: its title where all is well and where not, what to do, and how severe it is."""

    title: Title
    remedy: str
    severity: str = VIOLATION


CHECKS: Mapping[str, Check] = {
    "T-01": Check(
        ("The transcript is the one that the log binds, whole", "The transcript is not the one that the log binds"),
        "ask for the files as the run wrote them; believe neither until you know which was changed",
    ),
    "T-02": Check(
        ("Every message of the server is a sound frame", "The server sent what is no sound frame of the protocol"),
        "ask what wrote these messages: the protocol's server did not",
    ),
    "T-03": Check(
        ("Sessions and rounds have the parameters of configuration and log", "Clients were told other parameters"),
        "what clients were told is what they masked under: correct configuration and log, or doubt the run",
    ),
    "T-04": Check(
        ("One roster a session, one START a round, every slot once", "A session or slot was used as it must not be"),
        "masks of such a slot may come twice: treat the uploads in it as seen by the server",
    ),
    "T-05": Check(
        ("No public key comes twice", "A public key comes twice"),
        "whoever repeats keys repeats secrets: mend its randomness, and count its rounds as unmasked",
    ),
    "T-06": Check(
        ("No box, blob, commitment, ciphertext or share comes twice", "Sealed or shared bytes come twice"),
        "secrets or nonces were used again: mend the client, and count its rounds as unmasked",
    ),
    "T-07": Check(
        ("Never both secrets of one client in one slot", "Both secrets of a client were revealed"),
        "the server can take all masks off that client's upload: count it as seen in the clear",
    ),
    "T-08": Check(
        ("All were told the same survivors, enough of them, as in the log", "Survivors that must not be were told"),
        "a sum of other or fewer clients than the log says was released: charge it",
    ),
    "T-09": Check(
        ("Every signature verifies under its owner's identity key", "A signature does not verify"),
        "without signatures a server can tell two stories: doubt keys and survivors of the round",
    ),
    "T-10": Check(
        (
            "The protocol's server, given the clients' messages, sends what was sent and ends as the log says",
            "The server did not do what the protocol's server does, or the log says otherwise",
        ),
        "believe the messages: ask what became of the round",
    ),
    "T-11": Check(
        ("The sum that the messages unmask to is the one that the run kept", "The kept sum is not the unmasked one"),
        "the sum was changed after the protocol had released it: ask for the one that is in these messages",
    ),
    "T-12": Check(
        ("Uploads are packed as the protocol says, one of a client", "An upload is not packed, or comes twice"),
        "ask for the client's program: two uploads under one mask tell their difference",
    ),
    "T-13": Check(
        ("Masked uploads are as uniform as masks make them", "Uploads are not uniform: a mask is missing or weak"),
        "count these uploads as seen in the clear, and mend the client's randomness",
    ),
    "T-14": Check(
        ("No two uploads are close to each other", "Two uploads are under the same mask"),
        "the server knows the difference of what is under them: count both as seen in the clear",
    ),
    "T-15": Check(
        ("The bytes of the messages are those of the log", "The log counts other bytes than there are messages"),
        "messages were left out of the transcript, or figures of the log are made up",
    ),
    "T-16": Check(
        ("No client sent what had to be refused", "Clients sent what had to be refused"),
        "no breach by the server: look at these clients' programs and connections",
        WARNING,
    ),
}


class Notes:
    """What was met: problems by check, and why some check could not be made."""

    def __init__(self) -> None:
        self._problems: dict[str, list[Problem]] = defaultdict(list)
        self._open: dict[str, str] = {}
        self._fine: dict[str, str] = {}

    def problem(self, check: str, where: str, what: str) -> None:
        """A problem of that check; the same one only once."""
        met = self._problems[check]
        if len(met) < _MOST and (where, what) not in met[-8:]:
            met.append((where, what))

    def met(self, check: str) -> bool:
        """Whether the check has met a problem."""
        return bool(self._problems.get(check))

    def cannot(self, check: str, why: str) -> None:
        """The check could not be made everywhere; the first reason stays."""
        self._open.setdefault(check, why)

    def fine(self, check: str, evidence: str) -> None:
        """What to say where the check met nothing."""
        self._fine[check] = evidence

    def findings(self) -> list[Finding]:
        """A finding of each check, in their order."""
        found = []
        for check, (title, remedy, severity) in CHECKS.items():
            problems = self._problems.get(check, [])
            if not problems and check in self._open:
                found.append(unchecked(check, title, self._open[check]))
            else:
                found.append(judged(check, title, problems, self._fine.get(check, ""), remedy, severity))
        return found
