"""Images of more than 8 bits for tests, in files as scanners, microscopes and phones write them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(size: tuple[int, int], bits: int, raw: bytes, sample: int = UNSIGNED, white_is_zero: bool = False) -> bytes:
    """A grey TIFF of `size` (width, height), written by hand: Pillow reads more kinds than it writes."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 0, 277: 1,
            278: size[1], 279: len(raw), 339: sample}  # fmt: skip
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + raw


def sixteen(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values.astype(np.uint16)))


def floats(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values.astype(np.float32)), "TIFF")


def signed(values: np.ndarray) -> bytes:
    """16 bits with a sign, such as Hounsfield units."""
    return tiff(values.shape[::-1], 16, values.astype("<i2").tobytes(), SIGNED)


def dicom(values: np.ndarray, **tags: object) -> bytes:
    """A DICOM file of `values`, uint8 or (u)int16, (height, width), (frames, height, width) or (height, width, 3)."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    colour = values.shape[-1] == 3
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = SecondaryCaptureImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
    found.Rows, found.Columns = values.shape[:2] if colour else values.shape[-2:]
    if values.ndim == 3 and not colour:
        found.NumberOfFrames = len(values)
    found.SamplesPerPixel, found.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        found.PlanarConfiguration = 0
    found.BitsAllocated = found.BitsStored = 8 * values.dtype.itemsize
    found.HighBit, found.PixelRepresentation = found.BitsStored - 1, int(values.dtype.kind == "i")
    found.PixelData = values.tobytes()
    for tag, value in tags.items():
        setattr(found, tag, value)
    stream = io.BytesIO()
    found.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def write_raw(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path
