"""Sections about where runs come from: in what their configurations differ, and their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flowpolicies.pages.blocks import CodeBlock, PageBlock, PageCell, Section, TableBlock, TextBlock
from flowpolicies.report.gather import Gathered, count, listed, short

OWN = ("seed", "run_dir", "data_dir", "cache_dir", "resume", "overwrite", "print_log")
"""Settings in which all runs differ, or that do not change what is trained: where files are, what is printed."""
ABSENT = "-"
"""What is shown for a setting that a run does not have."""


class Alike(NamedTuple):
    """Runs whose settings are all equal."""

    names: list[str]
    values: Mapping[str, str]
    """Setting -> value, as text."""


def configuration_section(gathered: Gathered) -> Section:
    """Settings in which the runs differ, and those that all of them share."""
    flat = {gathered.names[path]: configuration(record) for path, record in gathered.records.items()}
    groups, differing, shared = divide(flat)
    if not flat:
        return Section(title="Configuration", sentence="Results files do not hold the configuration of runs.")
    blocks = _tables(groups, differing, shared, "Settings in which the runs differ")
    for environment, several in _datasets(gathered).items():
        text = f"{environment}: the runs have {len(several)} different datasets, which the provenance lists."
        blocks.append(TextBlock(text))
    if files := len(gathered.runs) - len(flat):
        blocks.append(TextBlock(f"{count(files, 'results file')} do not hold the configuration of runs.", "missing"))
    sentence = "All runs have the same configuration, apart from tasks, data, seeds and folders."
    if differing:
        sentence = f"The runs have {len(groups)} configurations, which differ in {listed(differing, 6)}."
    return Section(title="Configuration", sentence=sentence, blocks=blocks)


def configuration(record: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run apart from its task and its data: name -> value, as text."""
    settings = record.get("settings", {})
    parts: dict[str, Any] = {
        **{name: record.get(name) for name in ("algorithm", "preset")},
        **record.get("hyperparameters", {}),
        **record.get("sb3_hyperparameters", {}),
        **{name: value for name, value in settings.items() if name not in ("env", "dataset", *OWN)},
    }
    return {name: _text(value) for name, value in parts.items() if value is not None}


def _datasets(gathered: Gathered) -> dict[str, set[str]]:
    """Environment -> fingerprints of the datasets of its runs, where there are several."""
    found: dict[str, set[str]] = {}
    for record in gathered.records.values():
        found.setdefault(short(str(record.get("env"))), set()).add(str(record.get("dataset", {}).get("fingerprint")))
    return {name: fingerprints for name, fingerprints in found.items() if len(fingerprints) > 1}


def divide(flat: Mapping[str, Mapping[str, str]]) -> tuple[list[Alike], list[str], list[str]]:
    """Groups of runs that are alike, the names of settings in which they differ, and of those that all share."""
    groups: list[Alike] = []
    for name, values in flat.items():
        same = next((group for group in groups if group.values == values), None)
        if same is None:
            groups.append(Alike([name], values))
        else:
            same.names.append(name)
    names = list(dict.fromkeys(name for group in groups for name in group.values))
    differing = [name for name in names if len({group.values.get(name) for group in groups}) > 1]
    return groups, differing, [name for name in names if name not in differing]


def _tables(groups: Sequence[Alike], differing: Sequence[str], shared: Sequence[str], caption: str) -> list[PageBlock]:
    blocks: list[PageBlock] = []
    if differing:
        head = ("setting", *(listed(group.names) for group in groups))
        rows = [[PageCell(name), *(PageCell(group.values.get(name, ABSENT)) for group in groups)] for name in differing]
        blocks.append(TableBlock(caption, head, rows))
    if shared:
        text = "\n".join(f"{name}: {groups[0].values[name]}" for name in shared)
        blocks.append(CodeBlock(f"What all runs share ({len(shared)})", text))
    return blocks


def provenance_section(gathered: Gathered, command: str) -> Section:
    """Commit, versions, hardware, data and commands of each run.

    Args:
        command: command that writes the report.
    """
    records = {gathered.names[path]: record for path, record in gathered.records.items()}
    groups, differing, shared = divide({name: _machine(record) for name, record in records.items()})
    rows, commands = [], []
    for name, record in records.items():
        dataset = record.get("dataset", {})
        data = f"{dataset.get('address') or 'without an address'} {str(dataset.get('fingerprint', ''))[:12]}".strip()
        rows.append([*map(PageCell, (name, _commit(record)[:12], data, _began(record)))])
        lines = [str(each) for each in record.get("commands", [])]
        commands.append(CodeBlock(f"Commands of {name}", "\n".join(lines) or "The run has not recorded its command."))
    blocks: list[PageBlock] = []
    if rows:
        head = ("run", "commit of flowpolicies", "dataset and its fingerprint", "began (UTC)")
        blocks.append(TableBlock("Where the runs come from", head, rows))
    blocks += _tables(groups, differing, shared, "Versions and hardware in which the runs differ")
    blocks += [*commands, CodeBlock("Command of this report", command)]
    commits = sorted({_commit(record)[:12] for record in records.values()})
    sentence = (
        f"All runs were trained by commit {commits[0]} of flowpolicies." if commits else "No run is recorded here."
    )
    if commits == [ABSENT]:
        sentence = "The runs have not recorded the commit of flowpolicies."
    elif len(commits) > 1:
        sentence = f"The runs were trained by {len(commits)} commits of flowpolicies: {listed(commits)}."
    return Section(title="Provenance", sentence=sentence, blocks=blocks)


def _machine(record: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("software", "hardware"):
        entries = record.get(part)
        if isinstance(entries, Mapping):
            found |= {str(name): _text(value) for name, value in entries.items()}
    return found


def _commit(record: Mapping[str, Any]) -> str:
    software = record.get("software")
    found = software.get("flowpolicies_commit") if isinstance(software, Mapping) else None
    return str(found or ABSENT)


def _began(record: Mapping[str, Any]) -> str:
    parts = record.get("parts")
    first = parts[0] if isinstance(parts, list) and parts else None
    return str(first.get("began", ABSENT) if isinstance(first, Mapping) else ABSENT)[:16].replace("T", " ")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
