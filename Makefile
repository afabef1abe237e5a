# `make` alone lists what can be made. Each target installs what it needs into .venv first.
BIN := .venv/bin
# Where it is set, each of the tests' many processes would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-nightly fuzz lint docs lock audit setup slurm slurm-down clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/make \1	\2/' | expand -t 17

# All that it makes lies in demo/: remove that folder, and it begins anew.
DEMO := scale=demo cluster=local paths.data=demo/data paths.runs=demo/runs paths.records=demo/records

DIGIT := digit-1488.jpg

demo: .venv/demo  ## an ablation on scikit-learn's digits, from shards to a table: minutes, no GPU
	@echo "== 1/5  scikit-learn's digits as shards: packed, shown, every byte read again"
	$(BIN)/python pipeline/shards.py make digits demo/data/digits
	$(BIN)/python pipeline/shards.py info demo/data/digits --sheet demo/digits.png
	$(BIN)/python pipeline/shards.py verify demo/data/digits
	@echo "== 2/5  Table 6: a small TNT with 1, 2, 4, 8 inner heads. Stopped, it continues"
	$(BIN)/python pipeline/launch.py ablation=inner_heads $(DEMO)
	@echo "== 3/5  The table, its controls (does the switch reach the network?), a page"
	$(BIN)/python ablations/report.py --scale demo --table 6 --html \
		--records demo/records --runs demo/runs --results demo/results
	@echo "== 4/5  A digit that no run learned from (a 9), by the best run's weights"
	tar -xOf demo/data/digits/digits-validation-00.tar $(DIGIT) > demo/$(DIGIT)
	$(BIN)/python -m tnt.predict demo/$(DIGIT) --weights demo --top 3
	$(BIN)/python -m tnt.figures attention demo/attention --image demo/$(DIGIT) --weights demo --size 48 --depths 1,2
	@echo "== 5/5  A run killed and started again, beside one left alone: the same weights?"
	$(BIN)/python -m benchmarks.resume demo/data/digits demo/resume
	@printf '%s\n' "" "What to try next (. .venv/bin/activate):" \
		"  python pipeline/launch.py ablation=controls" \
		"      minutes, no data: does all this work here?" \
		"  python ablations/report.py --why inner_heads/1 --records demo/records" \
		"      where a number comes from" \
		"  python pipeline/launch.py ablation=inner_heads action=plan" \
		"      the same on ImageNet: what it would cost"

# One process more than cores, up to eight: the one that tests Slurm mostly waits. With two more it took longer.
PROCESSES = $(shell n=$$(($$(getconf _NPROCESSORS_ONLN) + 1)); echo $$((n < 8 ? n : 8)))
PYTEST = $(BIN)/pytest --numprocesses $(PROCESSES) --dist loadgroup

test: setup  ## all tests, among them ruff and mypy
	$(PYTEST)

test-fast: setup  ## the tests that take no more than a few seconds each, and need neither Slurm nor a browser
	$(PYTEST) -m "not slow and not slurm and not browser"

test-nightly: setup  ## the longest tests: other sites of Slurm, lost nodes, accounting
	$(BIN)/pytest -m nightly --timeout 1200

FUZZ_SECONDS ?= 60
fuzz: setup  ## changes small files in thousands of ways; FUZZ_SECONDS=60 of each by atheris
	FUZZ=1000 $(BIN)/pytest tests/faults/test_fuzz.py --timeout 0
	@$(BIN)/python -m pip install -q -c constraints.txt atheris 2>/dev/null || \
		{ echo "fuzz: atheris is not published for this Python; hypothesis did it alone"; exit 0; }; \
	for reader in $$(ls tests/faults/corpus); do \
		$(BIN)/python -m tests.faults.by_atheris $$reader --seconds $(FUZZ_SECONDS) || exit 1; done

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup  ## the pages of docs/ as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lock: .venv/audit  ## requirements.lock: versions and hashes of all packages
	$(BIN)/uv pip compile setup.cfg --extra dev --constraint constraints.txt --universal --python-version 3.11.5 \
		--generate-hashes --no-annotate --no-header --output-file requirements.lock

# What is not a package's known fault is told in one line: above all that the list of them was not reached.
audit: .venv/audit  ## asks PyPI for known faults of these packages
	@$(BIN)/pip-audit --strict --disable-pip --progress-spinner off -r requirements.lock 2>.venv/audit.log || \
		{ tail -n 1 .venv/audit.log >&2; exit 1; }

setup: .venv/ready  ## what the tests need: .venv with all packages; as root on Debian, Slurm and Chromium too

slurm: setup  ## a small real Slurm cluster on this machine, accounting=1 with slurmdbd; Ctrl-C ends it
	$(BIN)/python -m tests.slurm.$(if $(accounting),accounting,cluster) up .slurm

slurm-down: setup  ## end that cluster from another shell
	$(BIN)/python -m tests.slurm.cluster down .slurm

# What .ci/setup installs for the tests includes what it installs for the demo.
.venv/ready: setup.cfg constraints.txt .ci/setup
	sh .ci/setup test

.venv/demo: setup.cfg constraints.txt .ci/setup
	sh .ci/setup demo

.venv/audit: .venv/ready
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[audit]'
	@touch $@

clean:  ## remove .venv and demo/
	rm -rf .venv demo
