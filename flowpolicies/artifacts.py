"""The error of files from outside, and strict reading of the JSON in them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_DEPTH = 32
"""Greatest depth of nested lists and objects in the JSON of a file; what flowpolicies writes stays below 12."""

MAX_TEXT = 2_000
"""Greatest number of characters of each part of an error's message; longer texts come from the file, and are cut."""


class ArtifactError(ValueError):
    """A file or folder from outside is damaged, is of another kind, or declares what is not accepted.

    It is the only error with which reading a policy file, a model zip, a checkpoint, a run folder or a dataset fails,
    besides `FileNotFoundError`, `PermissionError` and the `ImportError` of a package that the file needs.

    Args:
        path: path of the file or folder.
        problem: what is wrong, and what is allowed.
        place: where in the file, such as the name of a tensor or of a key; "": the whole file.
        hint: what to do next, as a sentence.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, *, place: str = "", hint: str = "") -> None:
        self.path, self.problem, self.place, self.hint = os.fspath(path), _cut(problem), _cut(place), hint
        text = f"'{self.path}'{f', {self.place}' if place else ''}: {self.problem}"
        text = text if text.endswith((".", "!", "?")) else f"{text}."
        super().__init__(f"{text} {hint}".rstrip())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.path, self.problem, self.place, self.hint)


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2 - 20
    return f"{text[:half]} [{len(text) - 2 * half} characters] {text[-half:]}"


def _rebuild(cls: type[ArtifactError], path: str, problem: str, place: str, hint: str) -> ArtifactError:
    return cls(path, problem, place=place, hint=hint)


@contextmanager
def reading(path: str | os.PathLike[str], place: str = "", hint: str = "") -> Iterator[None]:
    """Raises every error of the block as an `ArtifactError`, except those that are not about the content of the file.

    Errors that pass unchanged: `ArtifactError` itself, `FileNotFoundError`, `PermissionError`, `ImportError`, and what
    is not an `Exception`. Use it around the parsing of a file from outside, not around the work with its content.
    """
    try:
        yield
    except (ArtifactError, FileNotFoundError, PermissionError, ImportError):
        raise
    except Exception as error:  # Parsers of foreign bytes fail with errors of any class.
        text, kind = str(error).strip().split("\n")[0], type(error).__name__
        if not text or type(error) is not ValueError:  # The text of a plain ValueError says enough.
            text = f"{kind}: {text}" if text else kind
        raise ArtifactError(path, text, place=place, hint=hint) from error


def parse_json(text: str | bytes, path: str | os.PathLike[str], place: str = "") -> Any:
    """The value of a JSON text from outside.

    Raises:
        ArtifactError: if it is not valid JSON in UTF-8, is nested deeper than `MAX_DEPTH`, or has a key twice.
    """
    with reading(path, place, "The file is damaged, or not one that flowpolicies wrote."):
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_depth(text)
        return json.loads(text, object_pairs_hook=_without_repetition)


_TOKENS = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A text with its quotes, up to the end if it has no end, or a bracket."""


def _check_depth(text: str) -> None:
    """Counts brackets outside of strings before parsing, because Python's parser recurses."""
    depth = 0
    for token in _TOKENS.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif token[0] in ("]", "}"):
            depth -= 1


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return found
