"""When losses are compiled, how often, and what happens where they cannot be."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_learner as toy
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from trees import flat, stack

from flowpolicies.core import Batch, Learner, UpdateSpec, compiling
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.compile_times import FILE, CompileTimes, cache_dir
from flowpolicies.core.compiling import CompilationError, Compiler
from flowpolicies.core.learner import LearnerState

CPU = torch.device("cpu")
PARTS = UpdateSpec((("critic",), ("actor",)))
CRITIC = UpdateSpec((("critic",),), target_updates=())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    counters.clear()
    return


def double(names: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_updates_of_all_kinds_compile_each_stage_once() -> None:
    """Two kinds of updates, a learning rate that moves, and batches of another size, which are compiled apart."""
    counter = CompileCounter()
    learner, state = toy.make(compile=counter)
    generator = torch.Generator().manual_seed(0)
    for i in range(12):
        spec, rows = (CRITIC, 5) if i in (4, 10) else ((PARTS, CRITIC)[i % 2], 8)
        batch = toy.make_batch(i, rows)
        draws = learner.draws(state, batch, spec, [generator])
        learner.update(state, batch, draws, spec, torch.tensor(1e-2 / (i + 1)))
    assert counter.frame_count == 3  # The critic's stage for two sizes, and the actor's.
    assert not counters["recompiles"]


def test_more_functions_can_be_compiled_than_torch_keeps_variants_of_one() -> None:
    """As for ten models in one process, whose stages are the same function."""
    for size in range(1, 11):
        x = torch.ones(size)
        torch.testing.assert_close(Compiler("eager", CPU)(("a",), size, double, (x,)), 2 * x)


def test_bfloat16_and_seeds_compile_too() -> None:
    found = []
    for choice in (False, "aot_eager"):
        learner, state = toy.make(compile=choice, n_seeds=2, precision="bf16")
        params, targets = (stack([tree, tree]) for tree in (state.params, state.targets))
        state = LearnerState(params, targets, initial_moments(params))
        batch = Batch(*(torch.stack([column, column]) for column in toy.make_batch(0)))
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        draws = learner.draws(state, batch, CRITIC, generators)
        metrics = learner.update(state, batch, draws, CRITIC, torch.tensor(1e-2))
        found.append(metrics["critic/loss"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=0)


def test_auto_compiles_when_the_updates_to_come_repay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, x = Compiler("auto", CPU), torch.ones(3)
    compiled: list[Any] = []
    monkeypatch.setattr(compiling, "missing_for", lambda device: None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options) or function)
    compiler.updates_to_come = 1000  # A few microseconds each: not worth a minute.
    for _ in range(30):
        compiler(("a",), 3, double, (x,))
    assert not compiled
    compiler.updates_to_come = 10**12
    torch.testing.assert_close(compiler(("a",), 3, double, (x,)), 2 * x)
    compiler(("a",), 3, double, (x,))
    assert [options["backend"] for options in compiled] == ["inductor"]


def test_auto_does_not_decide_before_it_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, compiled = Compiler("auto", CPU), []
    monkeypatch.setattr(compiling, "missing_for", lambda device: None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(1) or function)
    compiler.updates_to_come = 10**12
    for _ in range(compiling.MEASURED):
        compiler(("a",), 3, double, (torch.ones(3),))
    assert not compiled


def test_a_rare_stage_counts_for_as_little_as_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stage in every update, and one in every 100th: the same eager time, but a hundredth of the calls."""
    compiler, compiled = Compiler("auto", CPU), []
    monkeypatch.setattr(compiling, "missing_for", lambda device: None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function.__name__) or function)
    compiler._eager = {(("often",), 3): compiling._Timing(2000, 1e-3), (("rare",), 3): compiling._Timing(20, 1e-3)}
    compiler.updates_to_come = 1_000_000  # They save 350 seconds and 3.5 seconds.
    compiler(("rare",), 3, double, (torch.ones(3),))
    compiler(("often",), 3, double, (torch.ones(3),))
    assert compiled == ["gradients_of_often"]


def test_the_next_process_knows_what_compiling_took() -> None:
    x = (torch.ones(3),)
    first = CompileTimes("fp32")
    assert first.expected("key", x) == 60
    first.record("key", x, 40.0)
    assert CompileTimes("fp32").expected("key", x) == 12  # Torch will find the code in its cache.
    CompileTimes("fp32").record("key", x, 7.0)
    assert CompileTimes("fp32").expected("key", x) == 7
    assert CompileTimes("bf16").expected("key", x) == CompileTimes("fp32").expected("other", x) == 60
    assert CompileTimes("fp32").expected("key", (torch.ones(4),)) == 60


@pytest.mark.parametrize("content", ["", "[1]", '{"a": "b"}', '{"a"'])
def test_a_damaged_file_of_times_is_as_none(content: str) -> None:
    (cache_dir() / FILE).write_text(content)
    assert CompileTimes(None).expected("key", ()) == 60
    CompileTimes(None).record("key", (), 10.0)
    assert list(json.loads((cache_dir() / FILE).read_text()).values()) == [3.0]


def test_code_is_kept_in_the_users_folder_unless_torch_is_told_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_dir() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, "/tmp/torchinductor_somebody"):  # Torch sets its default itself.
        if value is None:
            monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        else:
            monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", value)
        assert cache_dir() == tmp_path / ".cache/flowpolicies/inductor"


@pytest.mark.parametrize("choice", [True, "auto"])
def test_without_a_compiler_one_warning_names_the_package_and_updates_are_eager(
    choice: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compiler, "_repays", lambda *_: True)
    eager, compiled = toy.make(), toy.make(compile=choice)
    without = inductor.patch({"cpp.cxx": ("no-such-compiler",)})
    with without, pytest.warns(UserWarning, match=r"not compiled.*no C\+\+ compiler.*apt install g\+\+") as caught:
        toy.run(*compiled)
    assert len(caught) == 1
    torch.testing.assert_close(flat(compiled[1].params), flat(toy.run(*eager).params), atol=0, rtol=0)


def test_what_a_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_has_cpp_compiler", lambda: True)
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    cuda = torch.device("cuda")
    assert "pip install triton" in str(compiling.missing_for(cuda))
    monkeypatch.setattr(compiling, "find_spec", lambda name: "found")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "install gcc" in str(compiling.missing_for(cuda))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    assert "python3-dev" in str(compiling.missing_for(CPU))


def failing(*_: Any) -> Any:
    raise RuntimeError("an internal error\nwith details")


def test_a_compiler_that_fails_is_an_error_where_compiling_was_asked_for() -> None:
    learner, state = toy.make(compile=failing)
    with pytest.raises(CompilationError, match=r"losses critic, actor could not be compiled.*compile=False"):
        toy.run(learner, state)


def test_a_compiler_that_fails_is_one_warning_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compiler, "_repays", lambda *_: True)
    monkeypatch.setattr(compiling, "missing_for", lambda device: None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: failing)
    eager, compiled = toy.make(), toy.make(compile="auto")
    with pytest.warns(
        UserWarning, match=r"not compiled.*compiler failed \(RuntimeError: an internal error\)"
    ) as caught:
        toy.run(*compiled, step=PARTS)
    assert len(caught) == 1
    torch.testing.assert_close(flat(compiled[1].params), flat(toy.run(*eager, step=PARTS).params), atol=0, rtol=0)


@pytest.mark.parametrize("choice", ["indutcor", "yes"])
def test_an_unknown_choice_is_refused_with_those_that_are_known(choice: str) -> None:
    with pytest.raises(ValueError, match=rf'True, False or "auto", got \'{choice}\'.*aot_eager.*inductor'):
        toy.make(compile=choice)
    with pytest.raises(TypeError, match='True, False or "auto", got 3'):
        toy.make(compile=3)


@pytest.mark.parametrize(("backend", "choice"), [("inductor", True), ("aot_eager", "aot_eager")])
def test_the_old_name_works_and_says_the_new_one(backend: str, choice: bool | str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"compile_backend='{backend}' is now compile={choice!r}"):
        learner, _ = toy.make(compile_backend=backend)
    assert isinstance(learner, Learner)
    assert learner.compiler is not None
    assert learner.compiler.choice == choice


def test_eager_updates_load_no_compiler() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner, state = toy.make()
        toy.run(learner, state)
    assert learner.compiler is None


@pytest.mark.more
@pytest.mark.skipif(compiling.missing_for(CPU) is not None, reason="needs a C++ compiler")
def test_inductor_equals_eager_and_finds_its_code_again(tmp_path: Path) -> None:
    eager = toy.run(*toy.make())
    for attempt in range(2):
        torch._dynamo.reset()
        counters.clear()
        compiled = toy.run(*toy.make(compile=True))
        torch.testing.assert_close(flat(compiled.params), flat(eager.params), atol=1e-5, rtol=0)
        hits = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
        assert (hits > 0) == (attempt == 1)
    assert (tmp_path / FILE).is_file()


def test_on_a_gpu_cuda_graphs_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    options: list[Any] = []
    monkeypatch.setattr(compiling, "missing_for", lambda device: None)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    monkeypatch.setattr(torch, "compile", lambda function, **given: options.append(given["options"]) or function)
    compiler = Compiler(True, torch.device("cuda"))
    assert not compiler.reuses_outputs
    for _ in range(3):
        compiler(("a",), 3, double, (torch.ones(3),))
    assert [given["triton.cudagraphs"] for given in options] == [True]
    assert compiler.reuses_outputs
    assert len(begun) == 2  # The outputs of the call before may then be overwritten.


def test_metrics_do_not_share_memory_with_outputs_that_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compiler, "reuses_outputs", True)
    outputs: list[dict[str, torch.Tensor]] = []
    learner, state = toy.make(compile="eager")
    monkeypatch.setattr(
        Compiler,
        "__call__",
        lambda self, names, size, function, inputs: outputs.append(result := function(names, *inputs)) or result,
    )
    batch = toy.make_batch(0)
    draws = learner.draws(state, batch, toy.EVERY, [torch.Generator()])
    metrics = learner.update(state, batch, draws, toy.EVERY, torch.tensor(1e-2))
    _, own = outputs[0]
    assert metrics.keys() == own.keys()
    for name, value in metrics.items():
        assert torch.equal(value, own[name])
        assert value.data_ptr() != own[name].data_ptr()
