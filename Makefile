# make demo      draw pictures with the shipped model (base install: no torch, no compiler)
# make demo-video  continue two films (base install and PyAV)
# make studio    watch the shipped models draw, in a browser
# make site      the documentation as pages, into build/site; make site-serve shows it while one writes
# make test      development environment in .venv, then the tests; make test-slow has the long ones
PYTHON ?= python3
BIN := .venv/bin

MINUTES ?= 10

.PHONY: demo demo-video studio install site site-serve test test-slow test-bounds lint bench acceptance fuzz clean

demo: .venv-demo/.installed
	@echo "Inventing 16 pictures (the first run compiles the engine for this machine)"
	.venv-demo/bin/jpeglm generate -n 16 --out demo/samples
	@echo "Completing the lower half of src/jpeglm/assets/astronaut.jpg"
	.venv-demo/bin/jpeglm complete src/jpeglm/assets/astronaut.jpg --keep 0.5 -n 3 --out demo/completions
	@echo "Drawing a person to words"
	.venv-demo/bin/jpeglm generate --checkpoint avatars -n 4 --out demo/words \
	    --text "adventurer, short red hair, dark skin, green background"

.venv-demo/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet .
	@touch $@

studio: .venv-demo/.serve
	.venv-demo/bin/jpeglm studio

.venv-demo/.serve: .venv-demo/.installed
	.venv-demo/bin/python -m pip install --quiet '.[serve]'
	@touch $@

demo-video: .venv-demo/.video
	@echo "Continuing src/jpeglm/assets/pan.mp4, then ball.mp4, after five of eight frames"
	@echo "(pans go on well; a flying ball is still lost at the border of a macroblock)"
	.venv-demo/bin/jpeglm complete src/jpeglm/assets/pan.mp4 -n 3 --out demo-video/pan
	.venv-demo/bin/jpeglm complete src/jpeglm/assets/ball.mp4 -n 3 --out demo-video/ball

.venv-demo/.video: .venv-demo/.installed
	.venv-demo/bin/python -m pip install --quiet '.[video]'
	@touch $@

install: .venv/.installed

# torch comes first, by its pin: a later resolution would fetch several GB of CUDA packages.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,eval,heif,serve,docs,dev]'
	@touch $@

# Files are shared out among processes, each with one thread of torch's: tiny products on several
# cores mostly wait for each other.
test: install
	$(PYTEST) -m 'not slow'

# Those that train, kill, install or draw for tens of seconds each.
test-slow: install
	$(PYTEST) -m slow

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The compiled kernels again, each index checked (numba leaves that out otherwise), in a cache of their
# own: five to eight minutes. Intrinsics, which write vectors by hand, are outside it.
test-bounds: install
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.bounds-cache $(BIN)/python -m pytest $(KERNEL_TESTS)

KERNEL_TESTS := $(addprefix tests/unit/test_,$(addsuffix .py,jpeg_syntax codec_jpeg check codes tokenizer \
	avc avc_bytes avc_placed generation engine_cpu session likelihood text holes))

# Strict: a link or an anchor that leads nowhere ends it. The theme's own notice of its future is left out.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

site-serve: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/run.py

acceptance: install
	$(BIN)/python recipes/acceptance.py
	$(BIN)/python recipes/acceptance_clips.py
	$(BIN)/python recipes/same_everywhere.py
	$(BIN)/python recipes/kills.py --kills 100
	$(BIN)/python recipes/load.py

# Mutants of every kind of file that is read, for MINUTES in all.
fuzz: install
	$(BIN)/python -m tests.fuzzing --minutes $(MINUTES)

clean:
	rm -rf build dist src/*.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
