"""Field docstrings and help texts can be read alone: whole sentences or noun phrases, see `tools/prose.py`."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prose import Text, complaint, field_docstrings, unreadable_fields

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.cli.app import commands
from flowpolicies.cli.command import Group, Later
from flowpolicies.shell.catalog import DescribedConfig

ROOT = Path(__file__).parents[1]


def leaves(group: Group) -> Iterator[type]:
    """The dataclass of each command."""
    for entry in group.commands.values():
        if isinstance(entry, Group):
            yield from leaves(entry)
        else:
            yield entry.make() if isinstance(entry, Later) else entry


def flags(command: type) -> Iterator[tuple[type, str]]:
    """(class, name) of each field that is a flag; the fields of nested dataclasses are flags of the command."""
    hints = typing.get_type_hints(command)
    for field in dataclasses.fields(command):
        kind = hints[field.name]
        if isinstance(kind, type) and issubclass(kind, DescribedConfig):  # It repeats what the Config says.
            kind = ALGORITHMS[vars(command)["algorithm"]].Config
        if dataclasses.is_dataclass(kind):
            yield from flags(typing.cast(type, kind))
        else:
            yield next(owner for owner in command.__mro__ if field.name in inspect.get_annotations(owner)), field.name


def help_texts() -> dict[tuple[type, str], Text | None]:
    """(class, field) -> help text, for every flag of every command."""
    known: dict[str, dict[tuple[str, str], Text]] = {}
    found: dict[tuple[type, str], Text | None] = {}
    for owner, name in dict.fromkeys(flag for command in leaves(Group("", commands())) for flag in flags(command)):
        path = inspect.getsourcefile(owner)
        assert path is not None
        if path not in known:
            known[path] = {(text.owner, text.field): text for text in field_docstrings(Path(path))}
        found[owner, name] = known[path].get((owner.__name__, name))
    return found


def report(faults: list[tuple[Text, str]]) -> str:
    lines = [f"{t.path.relative_to(ROOT)}:{t.line}: {reason}: {' '.join(t.text.split())}" for t, reason in faults]
    return "\n".join([f"{len(lines)} texts cannot be read alone:", *lines])


def test_field_docstrings_can_be_read_alone() -> None:
    faults = unreadable_fields(ROOT)
    assert not faults, report(faults)


def test_every_flag_has_a_help_text_that_can_be_read_alone() -> None:
    texts = help_texts()
    assert len(texts) > 100
    without = [f"{owner.__name__}.{name}" for (owner, name), text in texts.items() if text is None]
    assert without == []
    judged = [(text, complaint(text.text)) for text in texts.values() if text is not None]
    faults = [(text, reason) for text, reason in judged if reason is not None]
    assert not faults, report(faults)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Of everything.", "has fewer than 4 words"),
        ("Of the data and of every run.", "begins with a preposition"),
        ("From then on, the actor is trained.", "begins with a preposition"),
        ("`actor_fast` is added to the flow.", "does not begin with a capital letter or a number"),
        ("[B, A] in the range [-1, 1].", "does not begin with a capital letter or a number"),
        ("lambda: the weight of the guidance.", "does not begin with a capital letter or a number"),
        ("Learning rate of Adam.", None),
        ("Q-Flow's lambda, the weight of the value.", None),
        ("1 where a step is the last of its episode.", None),
    ],
)
def test_what_can_be_read_alone(text: str, reason: str | None) -> None:
    assert complaint(text) == reason


def test_fields_are_found_with_their_classes(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        'x: int = 1\n"""Not a field."""\n'
        "class A:\n"
        '    """Doc."""\n'
        '    a: int\n    """Of A."""\n'
        "    b: int = 2\n"
        '    c = 3\n    """Not annotated."""\n'
        '    def f(self):\n        x: int = 1\n        """Not a field."""\n'
        '    class B:\n        d: "int"\n        """Of B."""\n'
    )
    found: list[Any] = [(text.owner, text.field, text.line, text.text) for text in field_docstrings(file)]
    assert found == [("A", "a", 6, "Of A."), ("B", "d", 15, "Of B.")]
