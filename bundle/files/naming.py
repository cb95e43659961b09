"""What may become a file's name in a folder of ours."""

from __future__ import annotations

import os

from ..errors import InputError

__all__ = ["check_name"]

#: File systems take 255 bytes, and endings and temporary names are added.
_MOST_BYTES = 200


def check_name(name: str, where: str) -> str:
    """The name, if a file in a given folder can have it.

    Args:
        name: without the ending that the file will get.
        where: what says it, for the sentence.

    Raises:
        InputError: if it would lead out of the folder, be hidden, or be no name.
    """
    is_path = any(sign in "/\\" or ord(sign) < 32 or ord(sign) == 127 for sign in name)
    if is_path or not name.strip() or name.startswith(".") or name.endswith((".h5ad", ".zarr")):
        shown = " ".join(name.split())[:80]
        raise InputError(
            f'{where}: "{shown}" cannot be the name of a file; leave out slashes, a dot in front and the ending.'
        )
    if len(os.fsencode(name)) > _MOST_BYTES:
        raise InputError(f'{where}: "{name[:40]}..." is too long for the name of a file; shorten it.')
    return name
