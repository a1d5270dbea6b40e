"""What the drivers in Python share: a step is a function, a line tells how it went, and the next one follows in any case."""

from collections.abc import Callable


def step(do: Callable[[], str | None]) -> None:
    """Runs what it decorates, and prints `ok NAME [what it read]`, or `FAIL NAME: why`."""
    name = do.__name__.replace("_", "-")
    try:
        told = do()
    except Exception as error:  # whatever a client may raise
        print(f"FAIL {name}: {type(error).__name__}: {' '.join(str(error).split())}")
    else:
        print(f"ok {name} {told or ''}")


def want(what: str, read: object, right: object) -> None:
    """Raises unless what was read is what is right."""
    if read != right:
        message = f"{what} is {read!r}, want {right!r}"
        raise AssertionError(message)
