"""Small prepared data, the run of a module's CONFIG that nobody disturbed; the race for bits."""

import importlib
import sys
from pathlib import Path

import pytest

GOLF = Path(__file__).resolve().parents[2] / "recipes" / "golf"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 pictures of noise in shards (`launched.make_data`)."""
    from tests.integration.launched import make_data

    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a training with the module's CONFIG."""
    from jpeglm.training.lm import train
    from tests.integration.launched import tokenizer

    out = tmp_path_factory.mktemp("whole") / "run"
    train(data, tokenizer(), out, request.module.CONFIG)
    return out


@pytest.fixture(scope="module")
def golf():
    """The modules of the race for bits, by name; what else is imported stays as it was."""
    before, known = sys.path[:], set(sys.modules)
    sys.path[:0] = [str(GOLF), str(GOLF.parent)]
    yield importlib.import_module
    sys.path[:] = before
    for name in set(sys.modules) - known:
        own = name.split(".")[0] in ("kit", "race", "task", "trial", "steps")
        if own or name.startswith("golf_"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def shipped():
    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.places import shipped_checkpoint

    return load_checkpoint(shipped_checkpoint())


@pytest.fixture(scope="module")
def streams(pictures, shipped):
    return [shipped.tokenizer.codec.encode(picture) for picture in pictures[:6]]
