"""Column types that behave alike on SQLite and PostgreSQL. Used by `tables` and by the migrations; calls nothing."""

import datetime
import re
from typing import Any

import orjson
from sqlalchemy import BigInteger, DateTime, Integer, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

MAX_INTEGER = 2**63 - 1
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class PlainText(TypeDecorator[str]):
    """Text that is compared and sorted by its bytes on both databases.

    PostgreSQL's own order depends on the machine's locale. It also refuses NUL, and no database driver takes a lone
    surrogate: both become U+FFFD, in what is written and in what is asked for, so that such a name in a request is
    just a name that nothing has.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The "C" collation exists on PostgreSQL only; SQLite sorts by bytes anyway."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Text(collation="C"))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean on the way in."""
        return None if value is None else clean(value)


class Json(TypeDecorator[Any]):
    """JSON text: TEXT on SQLite, JSON on PostgreSQL.

    Not JSONB, which reorders keys, rewrites numbers and refuses an escaped NUL: what is read is what was written, and
    queries do not look inside (the table `selectors` is for that), but for `resources.naming`, which looks at the text.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """PostgreSQL's driver gets its (de)serialiser from the engine."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSON(none_as_null=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Python data to JSON text."""
        return value if value is None or dialect.name == "postgresql" else to_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """JSON text to Python data."""
        return value if value is None or dialect.name == "postgresql" else orjson.loads(value)


class UtcTime(TypeDecorator[datetime.datetime]):
    """A moment, always aware and in UTC. A naive one is a programming error: ValueError."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """TIMESTAMPTZ on PostgreSQL; sortable text of fixed width on SQLite."""
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """To UTC; without the zone on SQLite, which has no column type for it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("expected a time with a zone")
        value = value.astimezone(datetime.UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """Aware, in UTC, whatever the session's zone is."""
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


RowId = BigInteger().with_variant(Integer(), "sqlite")
"""A key that counts up by itself: only INTEGER does on SQLite."""


def to_json(value: Any) -> str:
    """Compact JSON text with the keys in the order given."""
    return orjson.dumps(value).decode()


def clean(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)
