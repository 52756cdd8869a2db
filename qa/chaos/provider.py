"""The provider's side of every payment: what a real one remembers, and the simulated one does not.

It refuses to void what it has captured, and to capture what it has voided. Its memory is a folder of symbolic links,
one for each decision, because making a link is atomic between processes and outlives whichever is killed.
"""

import os
from collections import defaultdict
from pathlib import Path

from payments.provider import ProviderRefuses

NAME = "provider"
AUTHORISED = "authorised.log"


class Memory:
    """Shared by all replicas of payments, and read by the verdict."""

    def __init__(self, folder: Path):
        self._folder = folder / NAME
        self._folder.mkdir(exist_ok=True)
        self._log = self._folder / AUTHORISED
        self._writer = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def authorised(self, key, amount, reference):
        """Note what is held for an order; one write makes a whole line."""
        os.write(self._writer, f"{key.partition(':')[0]} {amount} {reference}\n".encode())

    def move(self, kind, reference):
        """Capture, void or refund an authorisation, or refuse to."""
        if kind == "refund":
            if self._decision(reference) != "capture":
                raise ProviderRefuses(f"{reference} was not captured")
            self._link(reference, "refund", "refund")
        elif self._link(reference, "decision", kind) != kind:
            raise ProviderRefuses(f"{kind} of {reference}, which is a {self._decision(reference)} already")

    def accounts(self):
        """{order id: (amount held, words for what became of it)}; the words are among capture, void, refund."""
        moved = defaultdict(set)
        for link in self._folder.iterdir():
            if link.is_symlink():
                moved[link.stem].add(str(link.readlink()))
        held = [line.split() for line in self._log.read_text().splitlines()]
        return {order: (amount, moved[reference]) for order, amount, reference in held}

    def _decision(self, reference):
        return str((self._folder / f"{reference}.decision").readlink())

    def _link(self, reference, name, word):
        """Make the link unless it is there; what it says now."""
        path = self._folder / f"{reference}.{name}"
        try:
            path.symlink_to(word)
        except FileExistsError:
            return str(path.readlink())
        return word
