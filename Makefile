# Two commands do it all: `make demo` shows the main job, `make test` runs every test. Both work on a fresh Debian or
# Ubuntu machine as root, and neither touches the machine's own links, rules or sysctls.
SHELL := /bin/sh
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# Files of tests at the same time. They wait more than they compute (for the kernel's RCU, for etcd's disk). Those of
# tests/kernel and tests/runtime run one by one: they look at what a call does from one moment to the next. Some look at
# nothing but what a command says, or at rules and packets in namespaces of their own: these run with the others.
JOBS ?= 3
AT_ONCE := $(wildcard tests/kernel/test_cli_*.py tests/kernel/test_firewall_*.py) \
	$(addprefix tests/kernel/test_,agent_cli.py trace_host.py ptp.py)
PARALLEL := tests/unit tests/etcd tests/overlay tests/lab tests/wheel $(AT_ONCE)
RUN_PACKAGES := ip:iproute2 nft:nftables ping:iputils-ping nsenter:util-linux
TEST_PACKAGES := $(RUN_PACKAGES) iptables:iptables /usr/lib/cni/bridge:containernetworking-plugins containerd:containerd \
	runc:runc conntrack:conntrack tcpdump:tcpdump /bin/busybox:busybox-static etcd:etcd-server etcdctl:etcd-client openssl:openssl ps:procps man:man-db cc:gcc \
	/usr/include/stdio.h:libc6-dev zsh:zsh fish:fish systemd-analyze:systemd setpriv:util-linux podman:podman \
	firewalld:firewalld dbus-daemon:dbus aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
	/usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross qemu-aarch64-static:qemu-user-static

.PHONY: demo lab test lint unit etcd kernel overlay lab-tests runtime bench wheel search clean help

help: ## what there is to make
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

demo: $(VENV)/run ## two containers on a bridge, through the real executables, shown and cleaned up
	@$(BIN)/python examples/bridge_demo.py

lab: $(VENV)/run ## two hosts with etcd and an overlay: who reaches whom, a picture, and down again
	@scripts/need etcd:etcd-server
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/lab

test: $(VENV)/test ## everything: lint, unit, kernel, runtime and wheel tests
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not crowd" $(PARALLEL)
	$(BIN)/python -m pytest tests/kernel tests/runtime $(AT_ONCE:%=--ignore=%)
	$(BIN)/python -m pytest -m crowd $(PARALLEL)

lint: $(VENV)/test ## ruff, mypy --strict and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit etcd overlay lab-tests: $(VENV)/test ## one folder of the tests, several files at a time
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/$(@:-tests=)

kernel runtime: $(VENV)/test ## one folder of the tests, one by one
	$(BIN)/python -m pytest tests/$@

search: $(VENV)/test ## the properties of tests/unit, with thirty times the examples
	$(BIN)/python -m pytest -n $(JOBS) --hypothesis-profile search tests/unit

bench: $(VENV)/test ## pycni against the reference plugins, interleaved, as ratios
	$(BIN)/python bench/add_del.py

wheel: $(VENV)/test ## dist/pycni-*.whl and the sdist
	$(BIN)/python -m build --outdir dist .

$(VENV)/python:
	@test -n "$(PYTHON)" || { echo "pycni needs Python 3.11 or newer (Debian: python3)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || scripts/need /nonexistent:python3-venv
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run: pyproject.toml $(VENV)/python
	@scripts/need $(RUN_PACKAGES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[fixtures,lab,etcd]'
	@touch $@

$(VENV)/test: pyproject.toml $(VENV)/python
	@scripts/need $(TEST_PACKAGES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/run

clean: ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache src/pycni.egg-info
