# Two commands carry the project: `make test` and `make demo`. Both set up what they need.
BIN := .venv/bin

.PHONY: test demo slurm slurm-down lint setup clean

test: setup lint
	$(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist loadgroup

demo: setup
	@echo "== 1/4  The size of every network in the paper, by formula and as counted"
	$(BIN)/python -m tnt.complexity
	@echo "== 2/4  A small real data set as shards: scikit-learn's digits"
	$(BIN)/python pipeline/shards.py make digits data/digits
	$(BIN)/python pipeline/shards.py info data/digits --sheet data/digits.png
	@echo "== 3/4  Every byte read again"
	$(BIN)/python pipeline/shards.py verify data/digits
	@echo "== 4/4  A small TNT learns them: about two minutes; killed and started again, it goes on"
	$(BIN)/python pipeline/train.py scale=demo
	@echo "Done: shards in data/digits, a contact sheet in data/digits.png, the run in runs/, its record in results/records/."

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
	rm -rf .venv
