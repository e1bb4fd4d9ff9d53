"""Where the files of a federation lie in the coordinator's folder; `credentials` says what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flora_secure.engine.deployed.keys import enrolment_file


@dataclass(frozen=True)
class Places:
    """Where the files of a federation lie below the coordinator's folder."""

    folder: Path

    @property
    def certificates(self) -> Path:
        """The folder of the authority and the server."""
        return self.folder / "certs"

    @property
    def enrolment(self) -> Path:
        """The enrolment file, which is public."""
        return self.folder / enrolment_file.NAME

    @property
    def sites(self) -> Path:
        """The folder that holds the sites' folders."""
        return self.folder / "sites"

    def site(self, client: int) -> Path:
        """The folder that the client of that number takes to its site."""
        return self.sites / f"site{client}"
