"""The choice of the matrix product."""

from __future__ import annotations

import pytest
import torch

from flowpolicies.core import matmul
from flowpolicies.core.matmul import VARIABLE, fast_matmul, is_exact

pytestmark = pytest.mark.skipif(matmul._settings() is None, reason="this version of torch has no such setting")


def precision() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor on which oneDNN is exact, whatever processor runs the tests."""
    monkeypatch.setattr(matmul, "is_exact", lambda: True)
    monkeypatch.setattr(matmul, "_is_amd", lambda: True)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("exact")
def test_torchs_setting_is_as_before_after_a_block_and_after_an_error() -> None:
    before = precision()
    with fast_matmul(256, 512):
        assert precision() == "bf16" != before
    assert precision() == before
    with pytest.raises(KeyError), fast_matmul(256, 512):
        raise KeyError
    assert precision() == before


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("rows", "width", "chosen"), [(1, 512, False), (256, 128, False), (256, 512, True)])
def test_small_products_stay_with_torch(rows: int, width: int, chosen: bool) -> None:
    with fast_matmul(rows, width):
        assert (precision() == "bf16") is chosen


@pytest.mark.usefixtures("exact")
def test_on_other_processors_torch_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "_is_amd", lambda: False)
    with fast_matmul(256, 512):
        assert precision() != "bf16"


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("choice", "rows", "chosen"), [("onednn", 1, True), ("torch", 4096, False)])
def test_the_environment_variable_decides(
    choice: str, rows: int, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, choice)
    with fast_matmul(rows, 512):
        assert (precision() == "bf16") is chosen


def test_another_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "mkl")
    with (
        pytest.raises(ValueError, match=r"FLOWPOLICIES_MATMUL is 'mkl', and must be auto, onednn or torch"),
        fast_matmul(256, 512),
    ):
        pass


def test_a_processor_that_would_compute_in_bfloat16_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rounding:
        fp32_precision = "none"

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return product(a.bfloat16(), b.bfloat16()).to(a.dtype) if a.dtype == torch.float32 else product(a, b)

    product = torch.Tensor.__matmul__
    is_exact.cache_clear()
    monkeypatch.setattr(matmul, "_settings", Rounding)
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not is_exact()
    is_exact.cache_clear()


def test_products_of_an_update_are_fp32() -> None:
    a, b = torch.randn(300, 513), torch.randn(513, 512)
    with fast_matmul(300, 512):
        product = a @ b
    error = (product - a.double() @ b.double()).abs().max()
    assert error < 1e-3
