# `make` lists the targets.
PYTHON ?= python3.11
BIN := .venv/bin
# Of pytest: two processes, which take tests from each other.
WORKERS := -n 2 --dist worksteal
SAMPLE := samples/banepa
SCENE := $(SAMPLE)/images/banepa_south.tif
DRAWN := --masks $(SAMPLE)/buildings.geojson --min-hole 4 --regularize --tta flips \
	--report --overwrite

.DEFAULT_GOAL := help
.PHONY: help demo train-demo test test-slow fuzz test-browser test-backends test-legacy lint docs lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/ready  ## outline a real scene, fine-tune, outline it again (3 minutes)
	@echo "The model that comes with bdloss has seen banepa_north, not banepa_south."
	$(BIN)/python predict.py $(SCENE) $(DRAWN) --out runs/demo/before
	$(BIN)/python train.py --dataset folder --data $(SAMPLE) --out runs/demo/run \
	  --set 'dataset.test=["banepa_south"]' --set dataset.contact=2 \
	  --set stage.0.epochs=12 --fresh
	$(BIN)/python predict.py $(SCENE) $(DRAWN) --out runs/demo/after \
	  --model runs/demo/run/model.keras
	$(BIN)/python docs/make_picture.py runs/demo/before/banepa_south_buildings.gpkg \
	  runs/demo/after/banepa_south_buildings.gpkg --out runs/demo/before_and_after.jpg
	@echo "orthophoto, truth, before, after: runs/demo/before_and_after.jpg"

train-demo: .venv/ready  ## train from nothing on a real scene, outline another (10 minutes)
	$(BIN)/python train.py --out runs/train-demo --fresh
	$(BIN)/python predict.py $(SCENE) $(DRAWN) --out runs/train-demo/prediction \
	  --model runs/train-demo/model.keras

test: .venv/ready  ## run all tests and the examples, and measure their coverage
	$(BIN)/python -m pytest --cov=bdloss $(WORKERS)

test-slow: .venv/ready  ## run what takes longer: the whole schedule of the paper
	$(BIN)/python -m pytest -m slow bdloss_tests

fuzz: .venv/ready  ## feed commands thousands of odd and damaged files (an hour)
	FUZZ=3000 $(BIN)/python -m pytest -q bdloss_tests/test_fuzz.py

# TensorFlow is not installed there: nothing of ours may need it.
test-backends: .venv-backends/ready  ## run losses, metrics and patches on JAX and PyTorch
	for backend in jax torch; do \
	  KERAS_BACKEND=$$backend .venv-backends/bin/python -m pytest -q $(WORKERS) \
	    bdloss_tests/test_backends.py bdloss_tests/losses \
	    bdloss_tests/test_callbacks.py \
	    bdloss_tests/metrics \
	    bdloss_tests/data/test_patches.py bdloss_tests/training/test_devices.py \
	    bdloss_tests/models/test_shipped.py bdloss_tests/models/test_torchvision.py || exit 1; \
	done

test-browser: .venv/ready  ## look at reports in headless Chromium and Firefox
	command -v chromium && command -v firefox-esr || \
	  apt-get install -y chromium firefox-esr
	$(BIN)/pip install -q -e '.[browser]'
	$(BIN)/python -m pytest -q -rs bdloss_tests/report

test-legacy: .venv-legacy/ready  ## run the loss tests under Keras 2 (tf_keras)
	.venv-legacy/bin/python -m pytest -q bdloss_tests/test_legacy.py

lint: .venv/ready  ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/ready  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock:  ## renew constraints.txt from the newest versions
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q -e '.[dev]'
	.venv-lock/bin/pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-lock

clean:  ## remove the virtual environments and the built documentation
	rm -rf .venv .venv-* site

# Made once, and again when the requirements change.
.venv/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

.venv-%/ready: constraints-%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install -q -r constraints-$*.txt
	touch $@
