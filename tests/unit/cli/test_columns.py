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


@pytest.mark.parametrize(
    ("quota", "used", "cells"),
    [
        ({}, None, ("", "")),
        ({"replicas": 20, "memory": None}, {"replicas": 12, "memory": "24Gi"}, ("12/20", "")),
        ({"replicas": 20, "memory": "64Gi"}, {"replicas": 0, "memory": "0"}, ("0/20", "0/64Gi")),
        ({"replicas": 20, "memory": "64Gi"}, None, ("20", "64Gi")),
    ],
)
def test_how_much_of_a_quota_is_used(
    quota: dict[str, Any], used: dict[str, Any] | None, cells: tuple[str, str]
) -> None:
    document = {"metadata": {"name": "team"}, "spec": {"quota": quota}, "status": {"used": used}}
    (row,) = rows_of(columns_of("Workspace"), [document])
    assert tuple(row[1:3]) == cells
