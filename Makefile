# Two commands carry the project: `make test` and `make demo`. Both set up what they need.
BIN := .venv/bin
# Where it is set, each of the tests' many processes would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test demo slurm slurm-down lint setup clean

test: setup lint
	$(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist loadgroup

# All that it makes lies in demo/: remove that folder, and it begins anew.
DEMO := scale=demo cluster=local paths.data=demo/data paths.runs=demo/runs paths.records=demo/records

demo: setup
	@echo "== 1/3  A small real data set as shards: scikit-learn's 8x8 digits. Packed, shown, every byte read again"
	$(BIN)/python pipeline/shards.py make digits demo/data/digits
	$(BIN)/python pipeline/shards.py info demo/data/digits --sheet demo/digits.png
	$(BIN)/python pipeline/shards.py verify demo/data/digits
	@echo "== 2/3  Table 6 on them: a small TNT with 1, 2, 4 and 8 inner heads. Stop it when you like: it goes on"
	$(BIN)/python pipeline/launch.py ablation=inner_heads $(DEMO)
	@echo "== 3/3  The table, and a page with its figures"
	$(BIN)/python ablations/report.py --scale demo --table 6 --html \
		--records demo/records --runs demo/runs --results demo/results

# A real Slurm cluster on this machine, to try things on; Ctrl-C ends it.
slurm: setup
	$(BIN)/python -m tests.slurm.cluster up .slurm

slurm-down: setup
	$(BIN)/python -m tests.slurm.cluster down .slurm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/ready

.venv/ready: setup.cfg constraints.txt .ci/setup
	sh .ci/setup

clean:
	rm -rf .venv demo
