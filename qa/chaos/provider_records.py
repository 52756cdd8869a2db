"""The payment provider's records, which a real provider keeps and the simulated one does not.

It refuses to void a captured payment and to capture a voided one. The records are a folder of symbolic links, one for
each decision, because creating a link is atomic between processes and survives their crash.
"""

import os
from collections import defaultdict
from pathlib import Path

from payments.provider import Operation, ProviderRefuses

NAME = "provider"
AUTHORISED = "authorised.log"


class Memory:
    """What the simulated provider records. All instances of payments share it, and the verdict reads it."""

    def __init__(self, folder: Path):
        self._folder = folder / NAME
        self._folder.mkdir(exist_ok=True)
        self._log = self._folder / AUTHORISED
        self._writer = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def authorise(self, call, reference):
        """Record the amount authorised for an order. One write appends a whole line atomically.

        A void may have come before, from an instance that took over the payment: the money is not held then.
        """
        os.write(self._writer, f"{call.key.partition(':')[0]} {call.amount} {reference}\n".encode())

    def move(self, operation, call, reference):
        """Capture, void or refund an authorisation, or refuse to."""
        if operation is Operation.REFUND:
            if self._decision(reference) != Operation.CAPTURE:
                raise ProviderRefuses(f"{reference} was not captured")
            self._link(reference, "refund", operation)
        elif self._link(reference, "decision", operation) != operation:
            raise ProviderRefuses(f"{operation} of {reference}, which is a {self._decision(reference)} already")

    def accounts(self):
        """{order id: (amount authorised, operations)}; the operations are a subset of capture, void, refund."""
        moved = defaultdict(set)
        for link in self._folder.iterdir():
            if link.is_symlink():
                moved[link.stem].add(str(link.readlink()))
        held = [line.split() for line in self._log.read_text().splitlines()]
        return {order: (amount, moved[reference]) for order, amount, reference in held}

    def _decision(self, reference):
        try:
            return str((self._folder / f"{reference}.decision").readlink())
        except FileNotFoundError:
            return ""

    def _link(self, reference, name, word):
        """Create the link unless it exists; returns its word."""
        path = self._folder / f"{reference}.{name}"
        try:
            path.symlink_to(str(word))
        except FileExistsError:
            return str(path.readlink())
        return word
