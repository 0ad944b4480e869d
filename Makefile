# Two commands matter: `make demo` and `make test`. Each does all the set-up it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit bench clean

help: ## Lists the targets.
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: ## Gets tools and packages, builds the wheel, installs it into .venv.
	@scripts/setup.sh test

demo: ## Base image, registry, pull, build, ls, push, unpack, run.
	@scripts/setup.sh demo
	@scripts/demo.sh

test: ## Lint, and every test: as root also once as an ordinary user.
	@scripts/setup.sh test
	@scripts/lint.sh
	@scripts/test.sh

lint: ## ruff, mypy, stubtest, import floors, cargo fmt, clippy, cargo test.
	@scripts/setup.sh test
	@scripts/lint.sh

unit: ## The tests that need no other program; ARGS goes to pytest.
	@scripts/setup.sh demo
	@.venv/bin/python -m pytest tests/unit tests/suites tests/spec tests/fuzz $(ARGS)

bench: ## Figures beside buildah, the quick rows; ARGS goes to benches.run instead (benches/README.md).
	@scripts/setup.sh test
	@.venv/bin/python -m benches.run $(or $(ARGS),--rows 1,2,3,5f,7,10,11 --peers buildah --runs 3)

clean: ## Removes what was built here.
	rm -rf .venv dist target
