"""Errors as a person reads them: one line on stderr, a line per field where several are wrong, and the next step.

`reported` stands around every command. Tracebacks are shown with -vv only; what was not foreseen says so.
"""

import contextlib
import errno
import sys
from collections.abc import Iterator

import typer

from podium.cli.display import clean
from podium.cli.exits import Exit
from podium.resources.errors import InvalidInput, PodiumError, Unavailable


@contextlib.contextmanager
def reported(verbose: int) -> Iterator[None]:
    """Raises typer.Exit with the code for whatever goes wrong inside, after having said what it was."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except PodiumError as error:
        report(error)
        _trace(error, verbose)
        raise typer.Exit(Exit.ERROR) from None
    except OSError as error:
        if error.errno == errno.EPIPE:
            # Whoever read our output has had enough of it: Typer ends quietly.
            raise
        say_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        _trace(error, verbose)
        raise typer.Exit(Exit.ERROR) from None
    except Exception as error:
        if isinstance(error, typer.Exit | typer.Abort | typer.BadParameter):
            raise
        if (invalid := _invalid_input(error)) is not None:
            report(invalid)
            raise typer.Exit(Exit.ERROR) from None
        say_error(
            f"podium failed unexpectedly: {type(error).__name__}: {error}. Next: run it again with -vv, and report it"
        )
        _trace(error, verbose)
        raise typer.Exit(Exit.ERROR) from None


def report(error: PodiumError) -> None:
    """The error on stderr."""
    for line in lines(error):
        print(line, file=sys.stderr)


def lines(error: PodiumError) -> list[str]:
    """One line, with the next step; where several fields are wrong, a line each and the next step last."""
    if (url := _refused_connection(error)) is not None:
        return [f"Error: Podium is not running at {clean(url)}; start it with `podium up`"]
    words = [error.message]
    if isinstance(error, InvalidInput):
        words = [_with_field(issue.field, issue.message) for issue in error.issues] or words
    found = [f"Error: {clean(word)}" for word in words]
    if error.next_step and len(found) == 1:
        found[0] += f"{'' if found[0].endswith(('.', '!', '?')) else '.'} Next: {clean(error.next_step)}"
    elif error.next_step:
        found.append(f"Next: {clean(error.next_step)}")
    return found


def _with_field(field: str, message: str) -> str:
    """`field: message`; some messages name their field themselves."""
    return message if message.startswith(f"{field}:") else f"{field}: {message}"


def _invalid_input(error: Exception) -> InvalidInput | None:
    """What pydantic found wrong with a request, made before it was sent; None for any other error."""
    if type(error).__name__ != "ValidationError":
        return None
    from pydantic import ValidationError

    from podium.resources.issues import issues_of

    return InvalidInput(issues_of(error)) if isinstance(error, ValidationError) else None


def _refused_connection(error: PodiumError) -> str | None:
    """The address on this machine where nobody listens, if that is what the error is about."""
    cause = error.__cause__
    if not isinstance(error, Unavailable) or type(cause).__name__ != "ConnectError":
        return None
    if "CERTIFICATE" in str(cause):
        # Somebody does listen, with a certificate that is not taken.
        return None
    url = getattr(getattr(cause, "request", None), "url", None)
    if url is None or url.host not in ("127.0.0.1", "localhost", "::1"):
        return None
    return f"{url.scheme}://{url.netloc.decode()}"


def say_error(words: str) -> None:
    """One error line of our own."""
    print(f"Error: {clean(words)}", file=sys.stderr)


def note(words: str) -> None:
    """Something to know that is no result: stderr, so that stdout stays what was asked for."""
    print(clean(words), file=sys.stderr)


def _trace(error: BaseException, verbose: int) -> None:
    if verbose > 1:
        import traceback

        traceback.print_exception(error)
