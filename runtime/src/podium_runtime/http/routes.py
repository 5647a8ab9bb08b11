"""What a skin says about its paths. Skins implement `Skin`; `listener` asks them."""

from collections.abc import Callable, Iterable
from typing import Protocol

from podium_runtime.http.exchange import Exchange

Handler = Callable[[Exchange], None]
Route = tuple[str, Handler]
"""A method and what answers it."""


class Skin(Protocol):
    """One protocol over the core."""

    def exact(self) -> Iterable[tuple[str, Route]]:
        """Return the paths that nearly all requests have, with their routes: they are found without being parsed."""
        ...

    def find(self, parts: list[str]) -> Route | None:
        """Return the route of a path in unquoted parts, None if it is none of this protocol's.

        Raises UnknownPath for a name or version that is not served here.
        """
        ...
