"""When Python searches for garbage: seldom during a start, as usual afterwards, and never in what the start has made.

A start imports modules, nearly all of whose objects live as long as the process. The usual search after every 700 new
objects took a tenth of the imports. Later each complete search spent a tenth of a second on these objects, during which
no call was served.
"""

import gc

NEW_OBJECTS = 50_000  # between two searches during a start
_usual = gc.get_threshold()


def search_seldom() -> None:
    """A start begins: called at the first import of `extensions`."""
    gc.set_threshold(NEW_OBJECTS, *_usual[1:])


def end_start() -> None:
    """The process has started. Only its first service does this: what a later one drops must still be found."""
    if not gc.get_freeze_count():
        gc.freeze()
        gc.set_threshold(*_usual)
