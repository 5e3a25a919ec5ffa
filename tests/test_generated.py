"""Files that are generated from the registered algorithms."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from stable_baselines3.common.torch_layers import FlattenExtractor

from flowpolicies.shell.policy_kwargs import _encoder

ROOT = Path(__file__).parents[1]


def test_generated_files_are_up_to_date() -> None:
    """Also where a user has declared a feature extractor before, which counts as an encoder."""
    _encoder(FlattenExtractor, {})
    spec = importlib.util.spec_from_file_location("generate", ROOT / "tools" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [str(path.relative_to(ROOT)) for path, text in generate.generated().items() if path.read_text() != text]
    assert not stale, f"{stale} do not follow from the registered algorithms: run `make generate`"
