# Two commands: `make demo` and `make test`. Both set up .venv first; README.md has the same as plain lines.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where it is set, every process compiles all Python files again: it doubles the time in which pytest collects tests.
unexport PYTHONDONTWRITEBYTECODE

# The exact CPU build first, so that nothing pulls CUDA wheels. For CUDA: install your own torch into .venv beforehand.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[ogbench,dev]'
	touch $@

# rl_zoo3 needs other versions of packages such as Pillow, and so an environment of its own.
.venv-zoo/.installed: pyproject.toml
	test -x .venv-zoo/bin/python || $(PYTHON) -m venv .venv-zoo
	.venv-zoo/bin/python -c "import torch" 2>/dev/null || .venv-zoo/bin/pip install --quiet torch==2.13.0
	.venv-zoo/bin/pip install --quiet --editable '.[zoo]' pytest pygame
	touch $@

# All datasets without faults, and all seeded faults, that `data check` is tested with.
data-faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "data_faults or not data_faults" tests/inspection

# The comparison with JAX has an environment of its own. Set BENCH_PYTHON to use another one, which has the extra `bench`.
BENCH_PYTHON ?= .venv-bench/bin/python
BENCH_SETUP := $(if $(filter .venv-bench/%,$(BENCH_PYTHON)),.venv-bench/.installed)
BENCH := OMP_NUM_THREADS=1 PYTHONPATH=.:integrations $(BENCH_PYTHON) -m flowpolicies bench
.venv-bench/.installed: pyproject.toml
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -c "import torch" 2>/dev/null || .venv-bench/bin/pip install --quiet torch==2.13.0
	.venv-bench/bin/pip install --quiet --editable '.[bench,ogbench]' pytest
	touch $@

# All measurements of docs/performance.md, and the page (half an hour on one core of a quiet machine; less where
# compiled updates are cached).
bench: $(BENCH_SETUP)
	$(BENCH) step --algorithms all --seconds 6 --out-dir docs/results
	$(BENCH) act --out-dir docs/results
	$(BENCH) online --out-dir docs/results
	$(BENCH) replay --out-dir docs/results
	$(BENCH) scaling --seconds 5 --threads 2 --out-dir docs/results
	$(BENCH) page

# Wheels of this package and of what PyTorch does not bring along, in .whl, for Linux and the Python that the variable
# names: for a machine that reaches no package index (docs/guides/speed.md). OGBench needs a tenth of dm_control.
WHEELS_PYTHON ?= 3.12
LINUX := $(foreach tag,_2_28 _2_27 _2_17 2014,--platform manylinux$(tag)_x86_64)
MISSING := ogbench|mujoco|mujoco.core|dm.control|dm.env|glfw|stable.baselines3|gymnasium|farama.notifications|tyro|typeguard|docstring.parser|tomli.w
wheels: setup
	rm -rf .whl && mkdir .whl
	$(BIN)/pip freeze | grep -iE '^($(MISSING))==' > .whl/missing.txt
	$(BIN)/pip download -q --no-deps --only-binary=:all: --python-version $(WHEELS_PYTHON) --implementation cp $(LINUX) -d .whl -r .whl/missing.txt
	zip -qd .whl/dm_control-*.whl 'dm_control/locomotion/*' 'dm_control/suite/*'
	$(BIN)/python -m hatchling build -t wheel -d .whl

# The updates in JAX compute what ours compute.
peers: $(BENCH_SETUP)
	OMP_NUM_THREADS=1 PYTHONPATH=.:integrations $(BENCH_PYTHON) -m pytest -q tests/benchmarking/test_peers.py

.PHONY: bench peers site links serve zoo setup demo demo-page test check fix generate docs-index conformance data-faults pretrained faults soak more bf16 mutants wheels

setup: $(VENV)/.installed

demo: setup
	$(BIN)/flowpolicies demo

# The demo, and its table and pictures in the README and in docs/results.
demo-page: demo
	$(BIN)/python tools/demo_page.py

test: setup
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -q -n 2

# Further cases of tests, and small parts of `make faults`: what CI runs beyond `make test` (about seven minutes).
more: setup
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -q -n 2 -m "more or faults"

# Changes losses, flows and samplers line by line in a copy, and reports the changes that no test notices (about an
# hour on two cores; a run that was stopped continues). One algorithm or file: make mutants ONLY=qflow
mutants: setup
	nice -n 10 $(BIN)/python tools/loss_mutants.py $(ONLY)

zoo: .venv-zoo/.installed
	OMP_NUM_THREADS=1 MPLBACKEND=Agg .venv-zoo/bin/python -m pytest -q tests/integrations/zoo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/architecture.py
	$(MAKE) --no-print-directory site

# The documentation in build/site; open build/site/index.html. Warnings, such as a link that leads nowhere, are errors.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

# Whether what pages and docstrings link to on other servers still answers. Needs a network.
links: setup
	$(BIN)/python tools/external_links.py

# The documentation on http://127.0.0.1:8000, built anew whenever a page is saved.
serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Files that follow from others: the stub that type checkers read, the tables of the algorithms' pages, the notebook.
generate docs-index: setup
	$(BIN)/python tools/generate.py

# All algorithms against the promises of Stable-Baselines3 (about 20 minutes on two cores), and the faulty classes that
# the checks must find. Writes the tables of docs/guides/sb3.md.
conformance: setup
	OMP_NUM_THREADS=1 $(BIN)/python tools/sb3_guide.py --jobs 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/conformance

# The policies in flowpolicies/pretrained: data, training, evaluation and cards (two to three hours on two cores).
pretrained: setup
	$(BIN)/python tools/pretrained.py

# 20,000 damaged and hostile files, and 100 kills of training runs (about twenty minutes on two cores). The artifacts of
# cases that do not end as they should are kept in the folder failures/.
FAULTS := PYTHONPATH=.:integrations:tests/support:tests/parity OMP_NUM_THREADS=1 MPLBACKEND=Agg FLOWPOLICIES_OFFLINE=1 $(BIN)/python -P
faults: setup
	$(FAULTS) -m fuzz --cases 20000 --jobs 2 --failures failures
	$(FAULTS) -m kills --offline 50 --online 50

# 100,000 steps of online training: memory, descriptors and threads must not grow (about ten minutes). Writes the
# figures of docs/guides/security.md.
soak: setup
	$(FAULTS) tools/soak.py

# Three seeds of the demo's Q-Flow in float32 and in bfloat16 (about a quarter of an hour on two cores). Writes
# docs/results/bf16.json and bf16.png.
bf16: setup
	$(BIN)/python tools/bf16_returns.py
