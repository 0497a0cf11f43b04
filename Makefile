# make demo       trains a small model from scratch and shows what it draws and writes
# make test       runs the tests            make coverage   with the branch coverage of floors 0 to 3
# make lint       ruff                      make clean      removes .venv and caches, never a trained model
#
# The first call makes .venv and installs into it; later calls start at once. To choose:
#   make demo PYTHON=python3.12                      another interpreter (make clean first, if .venv is there)
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
#                                                    another build of torch: this one is small and needs no GPU
#   make test ARGS="-k mixing"                       arguments for the command that runs
#   make test WORKERS=                               the tests in one process

PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=
# A process for each core, four at most; a file's tests stay together, since they share what they trained.
# One that hangs is ended (pyproject.toml) and not begun again.
WORKERS ?= --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# Named data (emoji, tiles) is used where it lies beside the repository, unless the caller says where it is.
ifndef MIXMODAL_DATA
ifneq ($(wildcard ../shared/data/.),)
export MIXMODAL_DATA := $(abspath ../shared/data)
endif
endif

# A stamp for each thing installed. Torch comes first and by itself, so that no other requirement picks its build.
MADE := $(VENV)/.made
WITH_TORCH := $(VENV)/.torch-$(shell printf '%s' '$(TORCH)' | cksum | cut -d ' ' -f 1)
FOR_USE := $(VENV)/.for-use
FOR_TEST := $(VENV)/.for-test
FOR_LINT := $(VENV)/.for-lint

.PHONY: demo test coverage lint clean
.DELETE_ON_ERROR:

demo: $(FOR_USE)
	$(BIN)/mixmodal demo $(ARGS)

test: $(FOR_TEST)
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

coverage: $(FOR_TEST)
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-config=pyproject.toml $(ARGS)

lint: $(FOR_LINT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage build dist *.egg-info
	find mixmodal tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit("mixmodal wants Python 3.11 or newer, $(PYTHON) is %s.%s: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(WITH_TORCH): $(MADE)
	$(PIP) $(TORCH)
	@rm -f $(VENV)/.torch-* && touch $@

$(FOR_USE): $(WITH_TORCH) pyproject.toml
	$(PIP) -e .
	@touch $@

$(FOR_TEST): $(WITH_TORCH) pyproject.toml
	$(PIP) -e '.[test]'
	@touch $@ $(FOR_USE)

$(FOR_LINT): $(WITH_TORCH) pyproject.toml
	$(PIP) -e '.[dev]'
	@touch $@ $(FOR_USE) $(FOR_TEST)
