"""Data sets of files for tests: written as people have them, and read back as sets."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from images import write

from flora_secure.data.dataset import Dataset, Split


def names(split: Split) -> list[str]:
    return [file.name for file in split.images.files]  # type: ignore[union-attr]


def pairs(data: Dataset, split: Split) -> set[tuple[str, str]]:
    return {(name, data.class_names[label]) for name, label in zip(names(split), split.labels, strict=True)}


def skipped(data: Dataset) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {one.reason: (one.count, one.names) for one in data.skipped}


def write_classes(root: Path, count: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    for number, label in enumerate(classes):
        for i in range(count):
            write(root / label / f"{i}.jpg", 1000 * number + i + len(root.name) * 31)


def lines(path: Path, *text: str) -> Path:
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def write_shard(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path
