# Everything needs only Python 3.11+ and pip; the environment is .venv here, nothing is global.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check docs bench format clean

install: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch .venv/ready

demo: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/seedbed run recipes/helpdesk.toml

test: .venv/ready
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-bench runs site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
