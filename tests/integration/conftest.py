"""Small prepared data, and the run of a module's CONFIG that nobody disturbed."""

from pathlib import Path

import pytest


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
