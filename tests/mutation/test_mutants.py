"""`make mutants` on a toy package: which mutants are found, which die, and what a second run does again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from loss_mutants import chosen, explained, report, run
from mutation.changes import mutants
from mutation.trial import fork

ROOT = Path(__file__).parents[2]

TOY = '''
"""A file of a package that needs no torch."""

BOUND = 3.0


def loss(valid: float, error: float, scale: float = 1.0) -> float:
    """Text, such as valid * error, is left alone."""
    if error < 0:
        raise ValueError(f"{error + 1} must be positive")
    return min(valid * error, BOUND)


def unused(error: float) -> float:
    return -error


class Sampler:
    def act(self, x: float) -> float:
        shift = lambda y: y + self.offset(2)
        return shift(x)

    def offset(self, n: int) -> float:
        return n - 1
'''

TESTS = """
from flowpolicies.losses.toy import Sampler, loss

def test_loss():
    assert loss(1.0, 2.0) == 2.0
    assert loss(1.0, 8.0) == 3.0

def test_act():
    assert Sampler().act(5.0) == 6.0
"""

VALID = "def test_valid():\n    assert loss(0.5, 2.0) == 1.0\n"

MUTANTS = {
    "BOUND: 3.0 -> 6.0": "killed",
    "Sampler.act: y + self.offset(2) -> y - self.offset(2)": "killed",
    "Sampler.act: 2 -> 3": "killed",
    "Sampler.offset: n - 1 -> n + 1": "killed",
    "Sampler.offset: 1 -> 0": "killed",
    "loss: error < 0 -> error >= 0": "killed",
    "loss: valid * error -> valid": "killed",
    "loss: valid * error -> valid / error": "killed",
    "loss: 0 -> 1": "survived",
    "loss: valid * error -> error": "survived",
    "unused: -error -> error": "unreached",
}
"""What becomes of each mutant of TOY with TESTS."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of one file, and its tests."""
    catalog = {"algorithms": [{"name": "toy_e", "home": "flowpolicies.losses.toy:ToyE"}]}
    contents = {
        "flowpolicies/__init__.py": "",
        "flowpolicies/losses/__init__.py": "",
        "flowpolicies/losses/toy.py": TOY,
        "flowpolicies/shell/catalog.json": json.dumps(catalog),
        "tests/test_toy.py": TESTS,
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def outcomes(tree: Path) -> dict[str, str]:
    """What became of each mutant after a further run."""
    run(tree, tree / "results.json", chosen(tree, ["toy_e"]), ["tests"], jobs=2)
    verdicts = json.loads((tree / "results.json").read_text())["verdicts"]
    return {key.removeprefix("losses/toy.py::"): outcome for key, (outcome, *_) in verdicts.items()}


def test_mutants_die_or_survive_and_are_tried_again_when_tests_change(tree, capfd) -> None:
    before = (tree / "flowpolicies/losses/toy.py").read_bytes()
    assert outcomes(tree) == MUTANTS
    assert "11 mutants, 0 of them known from before" in capfd.readouterr().out
    assert (tree / "flowpolicies/losses/toy.py").read_bytes() == before

    (tree / "tests/test_valid.py").write_text(TESTS.partition("def")[0] + VALID)
    assert outcomes(tree) == MUTANTS | {"loss: valid * error -> error": "killed"}
    assert "11 mutants, 9 of them known from before" in capfd.readouterr().out  # Not the survivors of `loss`.

    reasons = {"losses/toy.py::loss: 0 -> 1": "No test.", "losses/toy.py::BOUND: 3.0 -> 6.0": "Outdated."}
    assert report(tree, tree / "results.json", ["losses/toy.py"], reasons)
    out = capfd.readouterr().out
    assert "| losses/toy.py | 11 | 9 | 1 | 1 |" in out
    assert "unreached: losses/toy.py::unused: -error -> error (line 15)" in out
    assert "needs no explanation any more: losses/toy.py::BOUND: 3.0 -> 6.0" in out


def test_a_mutant_that_never_ends_is_ended() -> None:
    def never_ends() -> None:
        while True:
            pass

    _, status = os.waitpid(fork(never_ends, seconds=0.1), 0)
    assert os.WTERMSIG(status) == signal.SIGPROF


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("nets.target.critic(s)", {"nets.target -> nets.online", "nets.target -> nets.frozen"}),
        ("q.detach().mean()", {"q.detach().mean -> q.detach().sum", "q.detach() -> q"}),
        ("q.amin(-1)", {"q.amin -> q.amax", "-1 -> 0"}),
        ("q.clamp(-1, 2)", {"q.clamp(-1, 2) -> q", "q.clamp(-1, 2) -> q.clamp(2, -1)", "-1 -> 1", "2 -> 3"}),
        ("td(q, cfg.rho)", {"td(q, cfg.rho) -> td(cfg.rho, q)", "td(q, cfg.rho) -> td(q)"}),
        ("std(q, correction=0)", {"std(q, correction=0) -> std(q)", "0 -> 1"}),
        ("batch.next_observations", {"batch.next_observations -> batch.observations"}),
        ("q if cfg.residual else 0.1", {"cfg.residual -> not cfg.residual", "0.1 -> 0.2"}),
        ("-q", {"-q -> q"}),
        ("cast(Tensor, q), min(q, p), zip(q, p, strict=True)", set()),
    ],
)
def test_mistakes_that_are_made_in_a_line(line: str, changes: set[str], tmp_path: Path) -> None:
    path = tmp_path / "line.py"
    path.write_text(f"def loss(nets, q: 3 = 4):\n    return {line}\n")
    assert {mutant.change for mutant in mutants(path, "line.py")} == changes


def test_files_are_chosen_by_name_and_by_algorithm(tree) -> None:
    assert chosen(ROOT, ["edit", "qam_e", "qam"]) == ["losses/edit.py", "samplers/edit.py", "algorithms/qam.py"]
    assert chosen(tree, []) == ["losses/toy.py"]
    with pytest.raises(ValueError, match=r"no file 'tooy' to change; there are: toy, toy_e\. Did you mean 'toy'\?"):
        chosen(tree, ["tooy"])


def test_every_explained_survivor_is_still_a_mutant() -> None:
    """Whether it survives is seen by `make mutants` alone."""
    paths = {key.partition("::")[0] for key in explained()}
    known = {mutant.key for path in paths for mutant in mutants(ROOT / "flowpolicies" / path, path)}
    assert set(explained()) - known == set()
    assert all(reason.endswith(".") and len(reason) > 20 for reason in explained().values())
