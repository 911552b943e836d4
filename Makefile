# Two commands are all that a newcomer needs: make demo, make test.
.PHONY: help setup demo lab test lint bench bank site pictures clean
python := .venv/bin/python

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 10

setup:  ## install what the other commands need (Debian 12; root or sudo)
	@.ci/setup

demo: setup  ## a libvirt VM goes from "no /dev/kvm" to "guest code ran"
	@$(python) -m tests.lab.demo

lab: setup  ## a shell with a libvirt VM to try nestvirt on
	@$(python) -m tests.lab.shell

test: lint  ## every test that this machine can bring up
	@$(python) -m pytest -n 2 --dist worksteal

lint: setup  ## ruff and mypy
	@$(python) -m ruff check
	@$(python) -m ruff format --check
	@$(python) -m mypy

bench: setup  ## speed, as ratios side by side in one run
	@$(python) -m benchmarks

bank: setup  ## boot the bank of machines; write who was right about them into docs/explanation/proved.md
	@$(python) -m tests.lab.bank --write

site: setup  ## build the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict

pictures: setup  ## make the README's pictures anew, from real runs
	@$(python) -m tests.lab.pictures

clean:  ## remove the environment and the lab's cache
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis site
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/nestvirt-lab"
