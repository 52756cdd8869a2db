"""A file of keys that is read again when it changes: keys are rotated while the services run."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

T = TypeVar("T")


class KeyFile(Generic[T]):
    """What `load(path)` returns, anew at most LOOK_SECONDS after the file was replaced."""

    def __init__(self, path: str | Path, load: Callable[[Path], T]) -> None:
        """Read the file for the first time; raises what `load` raises."""
        self._path, self._load = Path(path), load
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._version = self._stat()
        self._content = load(self._path)

    def get(self) -> T:
        """Return the content; the same object as long as the file is the same."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._look()
        return self._content

    def _look(self) -> None:
        try:
            version = self._stat()
            if version == self._version:
                return
            self._content, self._version = self._load(self._path), version
        except (OSError, ValueError, TypeError) as error:
            log.error("%s cannot be used (%s); what was in it before still holds", self._path, error)  # noqa: TRY400
        else:
            log.info("%s has changed and was read again", self._path)

    def _stat(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
