"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import MRTError

TEMPORARY_SUFFIX = ".tmp"  # no document format's extension, so a file left by a killed process is never loaded as one


@contextmanager
def atomic_file(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A new binary file (read and write) that becomes `path` when the block ends, and vanishes when the block raises.

    It is written beside `path`, flushed to the disk and renamed, so that `path` is at every moment absent, the whole old
    file or the whole new one. Raises MRTError when `path` exists and `overwrite` is False, or cannot be written.
    """
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise MRTError(
            f'Cannot write "{path}": {error.strerror or error}; choose a folder that exists and is writable.'
        ) from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path, overwrite)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all; one that exists is replaced."""
    with atomic_file(path, overwrite=True) as file:
        file.write(text.encode())


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise MRTError when something is at `path` that may not be replaced."""
    if not overwrite and os.path.lexists(path):
        raise MRTError(f'"{path}" already exists and was left as it is; choose another name or allow overwriting.')


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)  # fails if another process made `path` meanwhile, where a rename would replace it
            temporary.unlink()
        except FileExistsError as error:
            raise MRTError(
                f'"{path}" was created by another program meanwhile and was left as it is; choose another name.'
            ) from error
        except OSError:  # a file system without hard links
            refuse_existing(path, overwrite)
            os.replace(temporary, path)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows cannot open a folder; its renames are journalled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
