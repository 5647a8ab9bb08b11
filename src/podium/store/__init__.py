"""Rank 4: everything durable. Resources with optimistic concurrency, leases and timers, changes for watches, events,
the audit trail, samples and tokens, on SQLite or PostgreSQL. Imports
`podium.resources`, and the rule of `planning.gateways` about whose report counts.

    store.py       Store: what other packages use                 database.py   transactions
    read.py        Read, Snapshot: questions to one snapshot      engine.py     SQLite or PostgreSQL; their errors
    write.py       Write, Apply: one serialised transaction       signals.py    who waits for a commit or for work
    schema.py      migrations/ and how they are run               tables.py     the tables; columns.py their types
    resources.py, selectors.py, work.py, changes.py, events.py, audit.py, samples.py, gateways.py, load.py,
    processor_times.py, comparisons.py, aliases.py, tokens.py   the rows and the SQL of one noun each
"""

from podium.store.aliases import AliasRow
from podium.store.audit import Actor, AuditRow, Subject
from podium.store.changes import Change
from podium.store.comparisons import ComparisonRow
from podium.store.events import EventRow
from podium.store.gateways import FORMER, INSTANCE, GatewayRow
from podium.store.load import LoadRow, RouteLoadRow
from podium.store.processor_times import ProcessorTimeRow
from podium.store.read import Read, Snapshot
from podium.store.resources import Page
from podium.store.samples import SampleRow
from podium.store.store import Pruned, Store
from podium.store.tokens import TokenRow
from podium.store.work import Lease
from podium.store.write import Apply, Write

__all__ = [
    "FORMER",
    "INSTANCE",
    "Actor",
    "AliasRow",
    "Apply",
    "AuditRow",
    "Change",
    "ComparisonRow",
    "EventRow",
    "GatewayRow",
    "Lease",
    "LoadRow",
    "Page",
    "ProcessorTimeRow",
    "Pruned",
    "Read",
    "RouteLoadRow",
    "SampleRow",
    "Snapshot",
    "Store",
    "Subject",
    "TokenRow",
    "Write",
]
