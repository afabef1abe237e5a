# Two commands carry the project: `make test` and `make demo`. Both set up what they need.
BIN := .venv/bin

.PHONY: test demo lint setup clean

test: setup lint
	$(BIN)/pytest

demo: setup
	$(BIN)/python -m tnt.complexity

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/ready

.venv/ready: setup.cfg constraints.txt .ci/setup
	sh .ci/setup

clean:
	rm -rf .venv
