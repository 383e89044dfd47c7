# Everything runs in the project's own .venv, made on first use; PYTHON chooses the interpreter (3.11 or 3.12), EXTRAS
# what is installed beside it (EXTRAS=dev,pypots: the imputers of PyPOTS too). demo and report run imputune's commands and
# not `dvc repro`, because that writes dvc.lock: hashes of weights differ by machine, and a clone would then differ from git.
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do $$name -c "" 2>/dev/null && echo $$name && break; done)
EXTRAS ?= dev
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
BIN := $(ROOT).venv/bin
COMMA := ,
HERE := $(firstword $(shell echo "$(ROOT)" | cksum))
READY := $(ROOT).venv/.ready-$(subst $(COMMA),-,$(EXTRAS))-$(HERE)
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: setup demo report test quick cluster lint load benchmark ui clean

setup: $(READY)

# --clear: the folder may be of a clone that was moved.
$(READY): $(ROOT)pyproject.toml $(wildcard $(ROOT)src/imputune/models/compiled/source/*)
	@echo "Installing into .venv (extras: $(EXTRAS)): this takes some minutes."
	$(PYTHON) -m venv $(if $(wildcard $(ROOT).venv/.ready-*-$(HERE)),,--clear) $(ROOT).venv
	$(BIN)/python -m pip install --quiet --no-compile --editable "$(ROOT)[$(EXTRAS)]"
	$(BIN)/python -m compileall -qq -j 0 $(ROOT).venv/lib || true # over the cores; pip does so on one. Templates do not compile
	$(BIN)/python -c "from pathlib import Path; from imputune.tracking.store import open_store; open_store(Path('$(ROOT)'))"
	$(BIN)/imputune --version # tells of compiled code
	touch $@

demo: $(READY) ## the main job on generated records
	cd $(ROOT) && imputune extract synthetic
	cd $(ROOT) && imputune folds synthetic
	cd $(ROOT) && imputune pretrain synthetic --skip-finished
	cd $(ROOT) && imputune grid synthetic
	cd $(ROOT) && imputune compare synthetic
	cd $(ROOT) && imputune promote synthetic
	@echo "Done. 'make report' adds the comparison of imputers, 'make ui' opens the MLflow UI; README.md goes on with real records."
	@echo "After 'make report', 'dvc commit --force' hands all outputs to DVC (docs/dvc.md)."

report: $(READY) ## what the demo leaves out: other imputers beside CSAI, and results/<dataset>/report.html
	cd $(ROOT) && imputune folds
	cd $(ROOT) && imputune pretrain --imputer all --skip-finished
	cd $(ROOT) && imputune grid
	cd $(ROOT) && imputune grid --imputer all
	cd $(ROOT) && imputune assess
	cd $(ROOT) && imputune compare
	cd $(ROOT) && imputune compare --by imputer,head

test: lint ## everything but `make cluster`
	cd $(ROOT) && python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not cluster"

cluster: $(READY) ## Ray, Slurm, DVC remotes, PostgreSQL, the compose file's commands; needs EXTRAS=dev,ray,remotes,server
	cd $(ROOT) && python -m pytest -n 0 -m cluster -rs

quick: $(READY) ## all but the tests that run commands in processes of their own or need a whole project
	cd $(ROOT) && python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not cluster"

lint: $(READY)
	cd $(ROOT) && ruff check . && ruff format --check . && mypy

load: $(READY) ## the champion served: 20 clients for a minute
	cd $(ROOT) && python -m benchmarks.serving_load

benchmark: $(READY) ## CSAI side by side with PyPOTS's, which it installs; 7 minutes
	$(BIN)/python -m pip install --quiet --editable "$(ROOT)[pypots]"
	cd $(ROOT) && python -m benchmarks.csai_speed

ui: $(READY) ## http://127.0.0.1:5000 (PORT changes it), and links that open compared runs side by side
	-@cd $(ROOT) && python -m imputune.cli.links $(or $(PORT),5000)
	@case "$(MLFLOW_TRACKING_URI)" in http*) echo "runs are on $(MLFLOW_TRACKING_URI): open it in a browser"; exit 1;; esac
	cd $(ROOT) && MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 --port $(or $(PORT),5000) \
	  --backend-store-uri $(or $(MLFLOW_TRACKING_URI),sqlite:///$(ROOT)mlflow.db)

clean: ## removes .venv alone, no data and no result
	rm -rf $(ROOT).venv
