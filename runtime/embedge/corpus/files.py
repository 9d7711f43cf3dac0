"""Files that are written atomically and durably, on every system."""

import importlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# On Windows a virus scanner or an indexer may hold a file for a moment after it was written.
_TRIES = 20
_SECONDS_BETWEEN_TRIES = 0.05
# On Windows, writing to a:b.npy would make a hidden part of the file a, nul.npy is a device.
_UNUSABLE = re.compile(
    r'[\x00-\x1f<>:"|?*]|^(con|prn|aux|nul|com\d|lpt\d)(?= *\.)' if os.name == "nt" else r"\x00",
    re.IGNORECASE,
)


def real_path(path: Path) -> Path:
    """The file that a path stands for, symbolic links followed, whether it exists or not."""
    return Path(os.path.realpath(path))


def forbidden(path: Path) -> str:
    """What the system allows in no name of a file, but this one has; or the empty string."""
    found = _UNUSABLE.search(path.name)
    return found[0] if found else ""


def write_synced(path: Path, write: Callable[[BinaryIO], object], like: Path) -> None:
    """Write a file and return when it is on the disk.

    Args:
        path: is created or overwritten.
        write: is given the open file.
        like: a file whose permissions ``path`` gets, where it exists and the system has them; they
            are set before the first byte is written.
    """
    remove(path)
    with path.open("wb") as stream:
        # Windows has but a read-only flag, with which the file could not be moved or deleted.
        if sys.platform != "win32" and like.exists():
            shutil.copymode(like, path)
        write(stream)
        stream.flush()
        sync(stream.fileno())


def replace(new: Path, target: Path) -> None:
    """Move a file to its place, atomically."""
    _retry(lambda: new.replace(target), target)


def remove(path: Path) -> None:
    """Delete a file, if it is there."""
    _retry(lambda: path.unlink(missing_ok=True), path)


def is_link(folder: Path) -> bool:
    """Whether a folder is a symbolic link, or on Windows a junction, which os.walk follows."""
    if folder.is_symlink():
        return True
    if sys.platform != "win32":
        return False
    return folder.lstat().st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT


def is_fixed(path: Path) -> bool:
    """Whether a file is read-only, and the system neither replaces nor deletes such files."""
    return sys.platform == "win32" and path.exists() and not os.access(path, os.W_OK)


def sync(descriptor: int) -> None:
    """Flush a file to the disk; on macOS fsync leaves it in the drive's cache."""
    if sys.platform == "darwin":
        fcntl = importlib.import_module("fcntl")
        with suppress(OSError):  # a file system without it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable. Windows cannot open folders, and needs no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse it
            sync(descriptor)
    finally:
        os.close(descriptor)


def _retry(action: Callable[[], object], path: Path) -> None:
    for _ in range(_TRIES):
        with suppress(PermissionError):
            action()
            return
        if sys.platform != "win32":
            break
        time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        action()
    except PermissionError as error:
        if sys.platform != "win32":
            raise
        reason = f"{error.strerror}: is it open in another program, or read-only?"
        raise PermissionError(error.errno, reason, str(path)) from error
