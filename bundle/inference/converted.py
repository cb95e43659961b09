"""Converted models kept on disk, so that a second start need not convert again."""

from __future__ import annotations

import hashlib
import logging
import zlib
from pathlib import Path

import torch

from ..files.atomic import replacing

__all__ = ["ConvertedModels", "fingerprint"]

logger = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size


class ConvertedModels:
    """A folder of converted models; a file that is damaged, cut short or cannot be read counts as absent.

    Args:
        folder: made when first written to; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def read(self, name: str) -> bytes | None:
        """The model called `name`, or None."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / name).read_bytes()
        except OSError:
            return None
        digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() != digest:
            logger.warning("%s is damaged: it is made again.", self.folder / name)
            return None
        try:
            return zlib.decompress(packed)
        except zlib.error as error:
            logger.warning("%s cannot be unpacked (%s): it is made again.", self.folder / name, error)
            return None

    def write(self, name: str, model: bytes) -> None:
        """Keep a model in one move; a folder that cannot be written to costs the next start time, and nothing else."""
        if self.folder is None:
            return
        packed = zlib.compress(model, 1)  # the masks of shifted windows repeat: ten times smaller
        try:
            with replacing(self.folder / name) as temporary:
                temporary.write_bytes(hashlib.sha256(packed).digest() + packed)
        except OSError as error:
            logger.warning("The converted model could not be kept in %s (%s).", self.folder, error.strerror)


def fingerprint(network: torch.nn.Module, *about: object) -> str:
    """Hexadecimal digest of a network's weights (names, shapes, values) and of whatever else makes a model differ."""
    digest = hashlib.sha256(repr(about).encode())
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
