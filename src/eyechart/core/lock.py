"""A folder locked for one process, on POSIX systems; a killed process holds nothing back."""

import errno
import fcntl
import logging
import os
from pathlib import Path

from .errors import UserError

log = logging.getLogger(__name__)

LOCK = ".eyechart.lock"
"""There while a process has the folder open, and after it was killed."""


class FolderLock:
    """An exclusive lock on a folder, by `flock` on a file in it; the system lets go when the process dies.

    The folder is made when absent. On a file system without locks a warning stands in for the lock.

    Raises:
        UserError: another process (or this one) has the folder open, or nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._handle = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = self._take()
            while not self._still_there():  # its last holder removed it between our open and our lock
                os.close(self._handle)
                self._handle = self._take()
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"{os.getpid()}\n".encode())
        except OSError as error:
            self.release()
            raise UserError(
                f"nothing can be written in {folder} ({error.strerror}); choose another --out"
            ) from None

    def release(self) -> None:
        """Remove the lock file while it is still ours, then let go; a second call does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            try:
                self._path.unlink(missing_ok=True)
            finally:
                os.close(handle)

    def _take(self) -> int:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 100).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise UserError(
                f"{self._path.parent} is in use by another process (pid {holder}); "
                "wait for it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(handle)
                raise
            log.warning(
                "%s: this file system has no locks; let only one process write here", self._path.parent
            )
        return handle

    def _still_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.stat())
        except FileNotFoundError:
            return False
