"""A key file that is read again when it changes, so that keys can be rotated while the services run."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0

T = TypeVar("T")


class KeyFile(Generic[T]):
    """The result of `load(path)`, loaded again at most CHECK_SECONDS after the file was replaced."""

    def __init__(self, path: str | Path, load: Callable[[Path], T]) -> None:
        """Load the file. Raises the errors of `load`."""
        self._path, self._load = Path(path), load
        self._check_at = time.monotonic() + CHECK_SECONDS
        self._version = self._stat()
        self._content = load(self._path)

    def get(self) -> T:
        """Return the content; the same object until the file changes."""
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + CHECK_SECONDS
            self._reload_if_changed()
        return self._content

    def _reload_if_changed(self) -> None:
        try:
            version = self._stat()
            if version == self._version:
                return
            self._content, self._version = self._load(self._path), version
        except (OSError, ValueError, TypeError) as error:
            log.error("%s cannot be loaded (%s); its previous content stays in use", self._path, error)  # noqa: TRY400
        else:
            log.info("%s has changed and was loaded again", self._path)

    def _stat(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
