"""Selectors as SQL over label rows and columns. What a column cannot say is refused here.

The first equality on a label drives the read through an index that holds the name too, so a page
is found in order without sorting, whether one device matches or all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, Table, and_, exists, not_, or_, select

from resources.errors import invalid
from resources.selectors import FieldSelector, KeysetRequirement, LabelSelector, Requirement

Condition = ColumnElement[bool]


def by_labels(
    query: Select[Any], objects: Table, labels: Table, wanted: LabelSelector
) -> tuple[Select[Any], ColumnElement[str]]:
    """`query` over `objects`, narrowed to what `wanted` matches, and the name to order by: that of
    the driving index, which the database then reads in order instead of sorting."""
    order: ColumnElement[str] = objects.c.name
    for requirement in wanted.requirements:
        if isinstance(requirement, KeysetRequirement):
            query = query.where(_keyset(objects, labels, requirement))
            continue
        if requirement.operator == "=" and order is objects.c.name:
            row = _alias(labels, "driver")
            joined = and_(
                row.c.uid == objects.c.uid,
                row.c.namespace == objects.c.namespace,
                row.c.key == requirement.key,
                row.c.value == requirement.values[0],
            )
            query = query.join(row, joined)
            order = row.c.name
            continue
        query = query.where(_label_condition(objects, labels, requirement))
    return query, order


@cache
def _alias(labels: Table, name: str) -> FromClause:
    """Made once: SQLAlchemy copies every column into a new one. Each EXISTS is a scope of its own,
    so all may share one, but for the one that the rows are joined with."""
    return labels.alias(name)


def _label_condition(objects: Table, labels: Table, requirement: Requirement) -> Condition:
    row = _alias(labels, "other")
    has = [row.c.uid == objects.c.uid, row.c.key == requirement.key]
    match requirement.operator:
        case "exists":
            return exists(select(row.c.uid).where(*has))
        case "!":
            return not_(exists(select(row.c.uid).where(*has)))
        case "=" | "in":
            return exists(select(row.c.uid).where(*has, row.c.value.in_(requirement.values)))
        case "!=" | "notin":
            # Also matches what lacks the key, as Kubernetes has it.
            return not_(exists(select(row.c.uid).where(*has, row.c.value.in_(requirement.values))))
    raise AssertionError(requirement.operator)


def _keyset(objects: Table, labels: Table, requirement: KeysetRequirement) -> Condition:
    rows = []
    for values in requirement.rows:
        pairs = []
        for key, value in zip(requirement.keys, values, strict=True):
            row = _alias(labels, "other")
            pairs.append(
                exists(
                    select(row.c.uid).where(
                        row.c.uid == objects.c.uid, row.c.key == key, row.c.value == value
                    )
                )
            )
        rows.append(and_(*pairs))
    return or_(*rows)


def by_fields(columns: Mapping[str, Any], wanted: FieldSelector) -> list[Condition]:
    """Conditions on `columns` (field path → column). A path without a column is a programmer's
    error: the selector was parsed against the kind's selectable fields."""
    return [_field_condition(columns[r.path], r) for r in wanted.requirements]


def _field_condition(column: ColumnElement[Any], requirement: Requirement) -> Condition:
    values = requirement.values
    negative: Condition
    match requirement.operator:
        case "exists":
            return and_(column.is_not(None), column != "")
        case "!":
            return or_(column.is_(None), column == "")
        case "=":
            return or_(column.is_(None), column == "") if values[0] == "" else column == values[0]
        case "in":
            return column.in_(values)
        case "!=" | "notin":
            negative = column.not_in(values)
            return or_(column.is_(None), negative)
        case "contains":
            return column.contains(values[0], autoescape=True)
        case "notcontains":
            negative = not_(column.contains(values[0], autoescape=True))
            return or_(column.is_(None), negative)
        case ">":
            return column > values[0]
        case ">=":
            return column >= values[0]
        case "<":
            return column < values[0]
        case "<=":
            return column <= values[0]
    raise invalid("fieldSelector", f"the operator {requirement.operator} is not supported here")
