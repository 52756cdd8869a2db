"""A remedy, and the patches that remove it from a copy of the tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """Replaces `old`, which occurs exactly once in `file`, by `new`."""

    file: str
    old: str
    new: str = ""

    def apply(self, root):
        """Patch the file under `root`; returns a function that undoes it. LookupError if `old` is not found once."""
        path = Path(root, self.file)
        text = path.read_text()
        if text.count(self.old) != 1:
            raise LookupError(f"{self.file}: {text.count(self.old)} times instead of once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))
        return lambda: path.write_text(text)


@dataclass(frozen=True)
class Remedy:
    """One remedy of a hazard or pitfall. All its patches are applied together: several remove a defence in depth."""

    against: str
    what: str
    patches: Sequence[Patch]
    test: str
    """The pytest node id of the test that fails without the remedy."""
    own_servers: bool = False
    """The test stops or kills a server, or the patch changes the content of a database."""

    @property
    def files(self):
        return sorted({patch.file for patch in self.patches})


def apply_all(patches, root):
    """Apply patches in order; returns a function that undoes all of them."""
    undo = []
    try:
        for patch in patches:
            undo.insert(0, patch.apply(root))
    except LookupError:
        for step in undo:
            step()
        raise
    return lambda: [step() for step in undo]
