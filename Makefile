# Everything happens in .venv, where the package is installed again when its requirements change.
# Python compiles modules when they are imported; to compile all would double the installation.
PYTHON ?= python3
VENV = .venv/bin
INSTALL = $(VENV)/pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo page course test explore lint clean
.NOTPARALLEL: # two installations at once would get in each other's way

# The main job on the built-in data: train on the simulated shop, compare, recommend.
demo: .venv/base
	$(VENV)/python -m gru4rec_np.train --out runs/demo --overwrite
	@echo
	$(VENV)/python -m gru4rec_np.recommend runs/demo -k 5 \
		$$($(VENV)/python -c "from gru4rec_np import Shop; print(*Shop().simulate(3).session(2)[:2])")

# A page that shows what a model computes as a session grows, on the demo's run, in the browser.
page: .venv/serve runs/demo/model.npz
	$(VENV)/python -m gru4rec_np.serve runs/demo --open

runs/demo/model.npz: | .venv/base
	$(VENV)/python -m gru4rec_np.train --out runs/demo --overwrite --baselines none

# The course, in the browser.
course: .venv/course
	$(VENV)/python -m gru4rec_np.course
	cd tutorials && ../$(VENV)/jupyter lab

# All tests, types included, on all cores. Hypothesis draws the same examples each time.
test: .venv/test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/python -m pytest -n auto --dist worksteal

# All tests again and again, Hypothesis drawing other examples each time. Takes hours.
ROUNDS ?= 10
explore: .venv/test
	for round in $$(seq $(ROUNDS)); do \
		HYPOTHESIS_PROFILE=explore $(VENV)/python -m pytest -n auto --dist worksteal || exit 1; \
	done

lint: .venv/test
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

clean:
	rm -rf .venv build *.egg-info runs

# The package with the extra of that name; base has none.
.venv/base .venv/serve .venv/course .venv/test: .venv/%: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.$(patsubst %,[%],$(filter-out base,$*))'
	touch $@
