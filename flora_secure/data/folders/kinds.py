"""Files that are no images by their names: what they are, and what to do with them. One table, for everybody who finds
such a file."""

from __future__ import annotations

PLAIN = "file that is no image by its name"

# what somebody may have taken for images, and how they become some; what is read is in `samples.IMAGE_SUFFIXES`
_KINDS = {
    "JPEG 2000 or JPEG XL image: save it as JPEG or PNG": (".jp2", ".j2k", ".jpx", ".jxl"),
    "raw photograph of a camera: save it as JPEG or PNG": (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"),
    "medical volume: save its slices as PNG or TIFF": (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"),
    "slide of many images: save its tiles as PNG or TIFF": (".svs", ".ndpi", ".mrxs", ".czi"),
    "drawing of lines: save it as PNG": (".svg", ".svgz", ".eps", ".ai"),
    "document: save its images as PNG": (".pdf", ".psd", ".xcf"),
    "array of numbers: save it as PNG or TIFF": (".npy", ".npz", ".mat", ".h5", ".hdf5", ".pt", ".pth", ".pkl"),
    "film: save its frames as JPEG or PNG": (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"),
    "packed archive: unpack it": (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".gz", ".7z",
                                  ".rar"),
}  # fmt: skip
_REASON_OF = {suffix: reason for reason, suffixes in _KINDS.items() for suffix in suffixes}


def suffix_of(name: str) -> str:
    """The end of a file's name that says what it is, in small letters: ".jpg", ".tar.gz"; "" where there is none."""
    stem, dot, last = name.lower().rpartition(".")
    if not dot or not stem:
        return ""
    longer = f".{stem.rpartition('.')[2]}.{last}"
    return longer if longer in _REASON_OF else f".{last}"


def left_out_for(name: str) -> str:
    """Why a file without an image's suffix is left out, by what its name says that it is."""
    return _REASON_OF.get(suffix_of(name), PLAIN)
