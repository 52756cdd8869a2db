"""Steps that do not need each other: one that fails stops none of those after it."""

from collections.abc import Callable, Iterable


def run_each(steps: Iterable[Callable[[], object]]) -> None:
    """Run every step. Then raise the first failure, if there was one, with the number of the others in its notes."""
    failures = []
    for step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001  (whatever it is, the other steps are run)
            failures.append(error)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"another step failed too: {other!r}")
        raise failures[0]
