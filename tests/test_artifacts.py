"""The error of files from outside."""

from __future__ import annotations

import pickle

import pytest

from flowpolicies.artifacts import MAX_DEPTH, ArtifactError, parse_json, reading


def test_the_error_names_path_place_problem_and_next_step() -> None:
    error = ArtifactError("a.bin", "has no weights", place="tensor 'w'", hint="Download it again.")
    assert str(error) == "'a.bin', tensor 'w': has no weights. Download it again."
    assert isinstance(error, ValueError)


def test_the_error_survives_a_pickle_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ArtifactError("a.bin", "bad", place="p", hint="h.")))
    assert (error.path, error.problem, error.place, error.hint) == ("a.bin", "bad", "p", "h.")


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), RecursionError("x"), MemoryError(), RuntimeError()])
def test_any_error_of_parsing_becomes_an_artifact_error(error: Exception) -> None:
    with pytest.raises(ArtifactError, match=f"a.bin.*{type(error).__name__}"), reading("a.bin"):
        raise error


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("x"), ImportError("x"), KeyboardInterrupt()])
def test_errors_that_are_not_about_the_content_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), reading("a.bin"):
        raise error


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[" * 100_000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "{", b"\xff\xfe", "1 2"]
)
def test_json_that_is_not_strict_is_refused(text: str | bytes) -> None:
    with pytest.raises(ArtifactError, match=r"a\.bin"):
        parse_json(text, "a.bin")


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    assert parse_json('{"a": "[[\\"' + "[" * 100 + '"}', "a.bin") == {"a": '[["' + "[" * 100}


def test_long_texts_of_a_file_are_cut() -> None:
    error = ArtifactError("a.npz", f"unknown column '{'x' * 50_000}' (known: rewards)", place="y" * 50_000)
    assert len(str(error)) < 4_200
    assert str(error).startswith("'a.npz', yyy")
    assert str(error).endswith("x' (known: rewards).")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
