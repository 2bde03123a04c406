"""Which column of a file plays which role: by the names that datasets commonly use.

The names are those that SWIFT 4.5 recognises (its automatic renaming), plus the columns of preference
and KTO data as TRL calls them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmtune.data.turns import shown
from llmtune.errors import UsageError, did_you_mean

ROLES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation", "conversations"),
    "query": ("query", "prompt", "instruction", "input", "question", "problem"),
    "response": (
        *("response", "answer", "output", "targets", "target", "answer_key", "answers"),
        *("solution", "text", "completion", "content"),
    ),
    "chosen": ("chosen",),
    "rejected": ("rejected_response", "rejected", "rejected_messages"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "tools": ("tools",),
    "label": ("label",),
    "images": ("images", "image"),
    "videos": ("videos", "video"),
    "audios": ("audios", "audio"),
}
"""Role -> the names of columns that play it."""

_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
IGNORED = "-"
"""What a column is mapped to when nobody should look at it."""
_SHOWN = 80  # characters


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The roles of one set of columns."""

    roles: Mapping[str, str]
    """Role -> column. `extra` is the column that is joined to the query (alpaca's input)."""
    unused: tuple[str, ...]
    """Columns that play no role."""


class AmbiguousColumns(ValueError):
    """Two columns that fit one role."""


_PLACEHOLDERS = '--columns \'{"NAME OF THE QUESTIONS": "query", "NAME OF THE ANSWERS": "response"}\''
"""What a column means is for the user to say: pasted as it stands this names no column, and is refused."""


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise `UsageError` for a column that is mapped to a name without a meaning."""
    for column, target in mapping.items():
        if target != IGNORED and target not in _ROLE_OF:
            known = ", ".join(names[0] for names in ROLES.values())
            raise UsageError(
                f"--columns maps {column!r} to {target!r}, which has no meaning",
                fix=f"{did_you_mean(target, _ROLE_OF) or 'choose one'} ({known}; {IGNORED!r} ignores the column)",
            )


def find_layout(columns: Iterable[str], mapping: Mapping[str, str], example: Mapping[str, Any] | None = None) -> Layout:
    """Return the roles of `columns`. A column that `mapping` names wins its role over all others.

    Names are known in any case ("Question"). Raises `AmbiguousColumns` (with both candidates) where two fit one
    role, `ValueError` (with what was looked for, and what `example` has in each column) where none fits any.
    """
    left = {column for column in columns if mapping.get(column) != IGNORED}
    roles: dict[str, str] = {}
    _choose(roles, {column: mapping[column] for column in sorted(left) if column in mapping})
    taken = set(roles)
    _choose(roles, {column: _known_name(column) for column in sorted(left - set(mapping))}, taken)
    _check_one_conversation(roles)
    _check_mapped(left, mapping, roles)
    if not {"messages", "query", "response", "chosen"} & roles.keys():
        looked_for = "; ".join(f"{role}: {', '.join(ROLES[role])}" for role in ("messages", "query", "response"))
        found = ", ".join(_with_example(column, example or {}) for column in sorted(left)) or "no column"
        mend = f"; say what yours are: {_PLACEHOLDERS}" if left else ""
        raise ValueError(f"no column fits: found {found}, looked for {looked_for}{mend}")
    return Layout(roles=roles, unused=tuple(_printable(left - set(roles.values()))))


def _check_mapped(columns: Collection[str], mapping: Mapping[str, str], roles: Mapping[str, str]) -> None:
    """Refuse rows that lack a column which was to bring the conversation: the rest would be trained on alone."""
    for column, target in mapping.items():
        role = _ROLE_OF.get(target)
        if role in ("messages", "query", "response", "chosen") and role not in roles and column not in columns:
            found = ", ".join(_printable(columns)) or "no column"
            raise ValueError(f"--columns maps {column!r} to {target!r}, and there is no such column: found {found}")


def _known_name(column: str) -> str:
    """Return the name that has a role and is written as `column` but for case and spaces, else `column` itself."""
    if column in _ROLE_OF:
        return column
    name = "_".join(column.casefold().split())
    return name if name in _ROLE_OF else column


def _with_example(column: str, record: Mapping[str, Any]) -> str:
    (name,) = _printable([column])
    return f"{name} ({shown(record[column])})" if record.get(column) is not None else name


def _printable(columns: Iterable[str]) -> list[str]:
    """Return names as a report shows them: one that is long or that no terminal takes (`\ud800`) escaped."""
    return sorted(name if name.isprintable() and len(name) <= _SHOWN else shown(name) for name in columns)


def _choose(roles: dict[str, str], names: Mapping[str, str], taken: Iterable[str] = ()) -> None:
    """Give each column the role of its name (column -> name), alpaca's pair of instruction and input included."""
    for column, name in names.items():
        role = _ROLE_OF.get(name)
        if role is None or role in taken:
            continue
        other = roles.get(role)
        if other is None:
            roles[role] = column
        elif {names.get(other), name} == {"instruction", "input"} and "extra" not in roles:
            first, second = (column, other) if name == "instruction" else (other, column)
            roles.update(query=first, extra=second)
        elif (column == name) != (other == names.get(other)):  # one is written exactly so
            roles[role] = column if column == name else other
        else:
            raise AmbiguousColumns(_both_fit(role, other, column))


def _check_one_conversation(roles: Mapping[str, str]) -> None:
    """Refuse a column of turns beside columns of single turns: each could be the conversation."""
    single = next((roles[role] for role in ("query", "response") if role in roles), None)
    if "messages" in roles and single is not None:
        raise AmbiguousColumns(_both_fit("conversation", roles["messages"], single))
    if "messages" in roles and "history" in roles:
        raise AmbiguousColumns(_both_fit("conversation", roles["messages"], roles["history"]))
    if "chosen" in roles and "response" in roles:
        raise AmbiguousColumns(_both_fit("response", roles["chosen"], roles["response"]))


def _both_fit(role: str, first: str, second: str) -> str:
    ways = (f'--columns \'{{"{column}": "{IGNORED}"}}\'' for column in (first, second))
    return f"the columns {first!r} and {second!r} both fit the role {role!r}: leave one out, {' or '.join(ways)}"
