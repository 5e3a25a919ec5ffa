"""Where the time of an update goes, by kind of operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch.profiler import ProfilerActivity, profile

from flowpolicies.algorithms import OfflineAlgorithm

ELEMENTWISE = """
    sigmoid sigmoid_ sigmoid_backward tanh mul mul_ add add_ addcmul addcmul_ sub div neg where pow square clamp clamp_
    exp sqrt rsub silu mish relu silu_backward mish_backward threshold_backward minimum
"""
COPIES = "cat copy_ clone index_select index stack fill_ zero_ slice_backward"

KINDS: Mapping[str, frozenset[str]] = {
    "products": frozenset({"addmm", "mm", "bmm", "baddbmm", "addmm_", "baddbmm_", "mkldnn_linear", "convolution"}),
    "elementwise": frozenset(ELEMENTWISE.split()),
    "layer norm": frozenset({"native_layer_norm", "native_layer_norm_backward", "rsqrt", "var_mean"}),
    "copies": frozenset(COPIES.split()),
    "sums": frozenset({"sum", "mean", "amin", "amax", "std", "max", "min"}),
    "optimizer": frozenset({"_fused_adam_", "_foreach_lerp_", "lerp_", "_foreach_mul_", "_foreach_add_"}),
}
"""Kind -> names of torch's operations without "aten::". All else, such as Python and autograd, is "other"."""


def shares_of_time(model: OfflineAlgorithm, updates: int = 3) -> dict[str, float]:
    """Fraction of the CPU time of an eager update by kind of operation, the largest first.

    The model makes one update before those that are profiled, and keeps them all.
    """
    model.train(1, model.batch_size)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        model.train(updates, model.batch_size)
    spent: Counter[str] = Counter()
    for event in recorded.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, names in KINDS.items() if name in names), "other")
        spent[kind] += event.self_cpu_time_total
    return {kind: round(time / spent.total(), 3) for kind, time in spent.most_common()}
