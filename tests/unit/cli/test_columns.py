"""Cells that are more than a field."""

from typing import Any

import pytest

from podium.cli.columns import columns_of, rows_of


def shown(document: dict[str, Any], title: str) -> object:
    columns = columns_of("Deployment")
    (row,) = rows_of(columns, [document])
    return dict(zip([column.header for column in columns], row, strict=True))[title]


@pytest.mark.parametrize(
    ("spec", "status", "cell"),
    [
        ({"replicas": 3}, {"readyReplicas": 2}, "2/3"),
        ({"replicas": 3, "scaling": None}, {}, "0/3"),
        (
            {"replicas": 1, "scaling": {"max": 8}},
            {"readyReplicas": 3, "scaling": {"desired": 4}},
            "3/4 (max 8)",
        ),
        (
            {"replicas": 1, "scaling": {"max": 8}},
            {"readyReplicas": 0, "scaling": {"desired": 0}},
            "0/0 (max 8)",
        ),
    ],
)
def test_how_many_are_ready_of_how_many(spec: dict[str, Any], status: dict[str, Any], cell: str) -> None:
    assert shown({"metadata": {"name": "churn"}, "spec": spec, "status": status}, "READY") == cell
