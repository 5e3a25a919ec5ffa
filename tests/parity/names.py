"""Names of recordings: the only place that says which file is replayed through which algorithm.

A file is `NAME_a.npz`; further recordings of the same NAME have another letter. The whole of NAME is looked up, never
only its beginning: `dac_d4rl_a` is not a recording of `dac`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ports import PORTS, Replayed

from flowpolicies.messages import did_you_mean

VARIANTS: Mapping[str, str] = {
    "fql_multi": "fql",
    "ifql_multi": "ifql",
    "iql_multi": "iql_ddpgbc",
    "qc_partial": "qc",
    "qflow_official_adv": "qflow_official",
    "qflow_official_adv_best": "qflow_official",
    "qflow_official_adv_nstep": "qflow_official",
    "qflow_official_fourier": "qflow_official",
    "qflow_official_mean": "qflow_official",
    "qflow_official_min": "qflow_official",
    "qflow_official_min_fourier": "qflow_official",
    "rebrac_multi": "rebrac",
    "rql_invalid": "rql",
    "rql_long": "rql",
}
"""NAME -> its port in `ports.PORTS`, where they differ. Every other port has recordings of its own name."""

STAGED: Mapping[str, str] = {
    "bdpo": "bdpo",
    "cac": "cac",
    "cac_qnorm": "cac",
    "dac_d4rl": "dac_d4rl",
    "diffusion_ql": "diffusion_ql",
    "idql": "idql",
    "qgpo": "qgpo",
    "qgpo_even": "qgpo",
    "qsm_online": "qsm_online",
}
"""NAME -> name of the algorithm, where an update has several stages (`config["stages"]`): replayed by staged.py."""

TO_COME: Mapping[str, str] = {
    "cfgrl": "cfgrl",
    "dqc": "dqc",
    "dqc_nochunk": "dqc",
    "dqc_wide": "dqc",
    "edp": "edp",
    "fan": "fan",
    "fan_min": "fan",
    "grad_step": "grad_step",
    "meanflowql": "meanflowql",
    "meanflowql_dynamic": "meanflowql",
    "qgf": "qgf",
    "value_flows": "value_flows",
    "value_flows_min": "value_flows",
    "vgf": "vgf",
    "vgf_max": "vgf",
}
"""NAME -> the method, of which there is no algorithm here yet."""


def recorded_name(stem: str) -> str:
    """The NAME in a file name without its ending.

    Raises:
        LookupError: if it is in none of the tables.
    """
    name = re.sub("_[a-z]$", "", stem)
    known = [*PORTS, *VARIANTS, *STAGED, *TO_COME]
    if name == stem or name not in known:
        raise LookupError(
            f"{stem}.npz is not a recording that tests/parity/names.py knows; files are called NAME_a.npz, with one of "
            f"the names {', '.join(sorted(known))}.{did_you_mean(name, known)}"
        )
    return name


def port_of(stem: str) -> Replayed | None:
    """The port of a file; None if it has several stages, or comes from a method to come."""
    name = recorded_name(stem)
    return PORTS.get(VARIANTS.get(name, name))


def algorithm_of(stem: str) -> str | None:
    """Name of the algorithm that a file is replayed through; None for a method to come."""
    port = port_of(stem)
    return STAGED.get(recorded_name(stem)) if port is None else port.port.algorithm
