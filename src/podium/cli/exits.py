"""Exit codes of `podium`, as docs/cli.md lists them. Data only."""

from enum import IntEnum


class Exit(IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    """Done; with --wait: promoted."""
    ERROR = 1
    """Refused, not found, not reachable: the line on stderr says what."""
    USAGE = 2
    """The command line could not be understood."""
    ROLLED_BACK = 10
    HELD = 11
    """Nothing moves until a person, or more traffic, decides."""
    TIMED_OUT = 12
    DEGRADED = 13
    """A Route is in force, but not all that it names is served."""
    INTERRUPTED = 130
