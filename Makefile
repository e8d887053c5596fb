# Needs Python 3.10 to 3.13 and a network connection to PyPI; everything else goes into .venv.
PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?= --steps 1000 --batch-size 16384

BIN := .venv/bin
READY := .venv/ready
DEMO_READY := .venv/demo-ready
TORCH_BIN := .venv-torch/bin
TORCH_READY := .venv-torch/ready
TORCH ?= torch==2.13.0+cpu
TORCH_ARGS ?=
LOWEST := tests/test_tiny.py tests/test_config.py tests/test_registry.py tests/test_public_face.py
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# As above, telling what is installed: a line for each package, or a bar in a terminal.
PIP_INSTALL_SHOWN := -m pip install --disable-pip-version-check

.PHONY: help demo test test-torch test-distributed test-lowest fuzz lint docs site package bench bench-gpu clean

help:
	@echo "make demo    learn a photograph; pictures go to ./demo"
	@echo "make test    run all tests             (PYTEST_ARGS='-k grid')"
	@echo "make test-torch  the tests of numbanet.torch, if pip has the CPU build of PyTorch"
	@echo "make test-lowest  the basic tests, with the oldest versions that are allowed"
	@echo "make package wheel and sdist in ./dist, checked"
	@echo "make test-distributed  several processes that train together, through MPI"
	@echo "make fuzz    try mutated inputs of every format  (FUZZ_ARGS='config_files --cases 1000')"
	@echo "make lint    check style, formatting and the types of the public API"
	@echo "make docs    write docs/config.md anew from the components"
	@echo "make site    the documentation, in ./site"
	@echo "make bench   measure training and inference speed on this machine"
	@echo "make bench-gpu  the same on the first GPU"
	@echo "make clean   remove .venv, ./demo and caches"
	@echo "Another Python than python3: make PYTHON=python3.12 ..."

demo: $(DEMO_READY)
	@$(BIN)/numbanet learn-image samples/images/astronaut.png samples/configs/config_hash.json \
		--output demo $(DEMO_ARGS)

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/distributed $(PYTEST_ARGS)

# On 2 and 4 ranks of MPI, and launches that fail.
test-distributed: $(READY)
	@$(BIN)/python -m pytest -p no:xdist $(PYTEST_ARGS) tests/distributed

# The CPU build of PyTorch is asked for by name: the usual one is 2 GB. Where pip does not have it:
# make test-torch TORCH_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
test-torch: $(READY)
	@if test -e $(TORCH_READY) || $(BIN)/python $(PIP_INSTALL) --dry-run --no-deps $(TORCH_ARGS) \
			'$(TORCH)' >/dev/null 2>&1; then \
		$(MAKE) --no-print-directory $(TORCH_READY) && \
		$(TORCH_BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS) tests/pytorch \
			tests/test_pages.py::test_its_code_runs_with_torch; \
	else \
		echo "make test-torch: skipped for want of PyTorch, pip has no $(TORCH) here; add" \
			"TORCH_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'"; \
	fi

fuzz: $(READY)
	@$(BIN)/python -m fuzz $(FUZZ_ARGS)

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
	@$(BIN)/hadolint docker/*.Dockerfile
	@for each in github-workflows:workflows/*.yml github-issue-forms:ISSUE_TEMPLATE/[bf]*.yml \
			github-issue-config:ISSUE_TEMPLATE/config.yml citation-file-format:../CITATION.cff; do \
		$(BIN)/check-jsonschema --quiet --builtin-schema vendor.$${each%%:*} .github/$${each#*:} || exit 1; \
	done

docs: $(READY)
	@$(BIN)/python docs/config_page.py docs/config.md

package: $(READY)
	@rm -rf dist build
	@$(BIN)/python -m build --no-isolation --outdir dist . >.venv/build.log 2>&1 || { cat .venv/build.log; exit 1; }
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/python .ci/check_package.py dist

test-lowest: pyproject.toml
	@$(PYTHON) -m venv --clear .venv-lowest
	@$(PYTHON) .ci/lowest.py samples snapshots >.venv-lowest/constraints.txt
	@.venv-lowest/bin/python $(PIP_INSTALL_SHOWN) -c .venv-lowest/constraints.txt \
		--editable '.[samples,snapshots]' pytest hypothesis
	@.venv-lowest/bin/python -m pytest $(LOWEST)

site: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean
	@! grep -rElI '(src=|url\()["'"'"']?https?://' site || { echo "these files of site/ need a network" >&2; exit 1; }
	@echo "wrote site/index.html"

bench: $(READY)
	@$(BIN)/python -m benchmarks.scripts.cpu_training $(BENCH_ARGS)
	@$(BIN)/python -m benchmarks.scripts.cpu_components $(COMPONENT_ARGS)

bench-gpu: $(READY)
	@$(BIN)/python -m benchmarks.scripts.gpu_training $(BENCH_ARGS)
	@$(BIN)/python -m benchmarks.scripts.gpu_inference $(BENCH_ARGS)
	@$(BIN)/python -m benchmarks.scripts.gpu_mlp $(BENCH_ARGS)

clean:
	rm -rf .venv .venv-torch .venv-lowest build demo dist site *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment with pip, if the Python is one that can be used.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
		echo "numbanet needs Python 3.10 to 3.13, and '$(PYTHON)' is $$($(PYTHON) -c 'import platform; print("Python " + platform.python_version())' 2>/dev/null || echo missing); choose another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: sudo apt install python3-venv" >&2; rm -rf .venv; exit 1; }

$(DEMO_READY): pyproject.toml | .venv/bin/pip
	@echo "Setting up .venv for the demo (once; 410 MB on disk, a minute or two)"
	@test -e $(READY) || $(BIN)/python $(PIP_INSTALL_SHOWN) --no-compile --editable '.[samples]'
	@touch $@

$(READY): pyproject.toml | .venv/bin/pip
	@echo "Setting up .venv for contributors (once; 1.6 GB on disk, some minutes)"
	@$(BIN)/python $(PIP_INSTALL_SHOWN) --editable '.[samples,snapshots,test,lint,package,site]'
	@touch $@

$(TORCH_READY): pyproject.toml
	@echo "Setting up .venv-torch (once; a minute or so)"
	@test -x $(TORCH_BIN)/pip || $(PYTHON) -m venv --clear .venv-torch
	@$(TORCH_BIN)/python $(PIP_INSTALL) $(TORCH_ARGS) --editable '.[samples,test,torch]' '$(TORCH)'
	@touch $@
