# One command sets up and runs the demo, one sets up and passes the tests.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
# DALI for CUDA 12, or cuda130; both write to one folder, so only one may be installed.
DALI ?= cuda120
INSTALLED := $(VENV)/installed-$(DALI)
export PYTHONPATH := $(CURDIR)
export OMP_NUM_THREADS ?= 2

.PHONY: install quickstart test lint clean

quickstart: $(INSTALLED) packs/demo/manifest.json
	$(VENV)/bin/python train_ddp.py --config configs/quickstart_backbone.yaml --out $(RUN)/backbone
	$(VENV)/bin/python train_ddp.py --config configs/quickstart.yaml --out $(RUN)/relation \
		--model.backbone_weights $(RUN)/backbone
	$(VENV)/bin/python evaluate.py --protocol configs/benchmarks/demo.yaml --pack packs/demo \
		--checkpoint $(RUN)/relation --out $(RUN)/results --overwrite --neighbors 5 \
		--evaluators whitened-cosine relation-logit cosine mahalanobis mahalanobis-normalized \
		knn knn-normalized

packs/demo/manifest.json: | $(INSTALLED)
	$(VENV)/bin/python -m sharding demo --out packs/demo

test: $(INSTALLED) lint
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

install: $(INSTALLED)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/installed-*
	$(VENV)/bin/python -m pip uninstall --quiet --yes nvidia-dali-cuda120 nvidia-dali-cuda130
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,$(DALI)]'
	touch $@

clean:
	rm -rf packs/demo runs/quickstart
