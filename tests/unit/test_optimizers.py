"""Our Muon against torch's own, which iterates in bfloat16, and against singular values."""

from __future__ import annotations

from copy import deepcopy

import pytest

torch = pytest.importorskip("torch")

from jpeglm.training import optimizers  # noqa: E402
from jpeglm.training.optimizers import Muon, _orthogonal  # noqa: E402
from jpeglm.training.run import has_bfloat16  # noqa: E402

SHAPES = [(48, 48), (96, 48), (48, 96), (48, 48)]
SETTINGS = {"lr": 1e-2, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)


def matrices() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(0.02 * torch.randn(s, generator=generator)) for s in SHAPES]


def walk(optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    """So many steps along random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_muon_goes_where_torchs_goes() -> None:
    """After five steps the two are apart by bfloat16's rounding: 1 % of the way."""
    begin, ours, theirs = matrices(), matrices(), matrices()
    mine, torchs = Muon(ours, **SETTINGS), torch.optim.Muon(theirs, **SETTINGS)
    walk(mine, 5, seed=1)
    walk(torchs, 5, seed=1)
    for start, a, b in zip(begin, ours, theirs):
        assert (a - b).norm() < 0.02 * (b - start).norm()
    state, other = mine.state_dict()["state"], torchs.state_dict()["state"]
    for number in range(len(SHAPES)):
        assert state[number].keys() == other[number].keys()
        assert torch.equal(state[number]["momentum_buffer"], other[number]["momentum_buffer"])


def test_all_of_a_shape_at_once_go_where_each_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, on this processor."""
    begin, alone, together = matrices(), matrices(), matrices()
    walk(Muon(alone, **SETTINGS), 3, seed=5)
    monkeypatch.setattr(optimizers, "_together", lambda found: [[0, 3], [1], [2]])
    walk(Muon(together, **SETTINGS), 3, seed=5)
    for start, a, b in zip(begin, alone, together):
        assert (a - b).norm() < 1e-3 * (b - start).norm()


def test_a_state_moves_between_the_two() -> None:
    """What torch's Muon saved goes on in ours: a run may change its machine."""
    parameters = matrices()
    saved = torch.optim.Muon(parameters, **SETTINGS)
    walk(saved, 2, seed=2)
    ours = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    other = Muon(ours, **SETTINGS)
    other.load_state_dict(deepcopy(saved.state_dict()))
    before = [p.detach().clone() for p in ours]
    walk(saved, 1, seed=3)
    walk(other, 1, seed=3)
    for start, a, b in zip(before, ours, parameters):
        assert (a - b).norm() < 0.02 * (b - start).norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_keep_directions_and_level_their_sizes(shape: tuple[int, int]) -> None:
    """U S Vᵀ becomes U S' Vᵀ with S' between 0.68 and 1.14, the polynomial's range."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    sizes = sizes.clamp(min=0.05 * float(sizes.max()))
    found = u.T @ _orthogonal(((u * sizes) @ v)[None], NEWTON_SCHULZ, 5, 1e-7)[0] @ v.T
    level = found.diagonal()
    exact = not has_bfloat16(torch.device("cpu"))
    assert (found - torch.diag(level)).abs().max() < (1e-4 if exact else 0.02)
    assert level.min() > 0.6
    assert level.max() < 1.25


def test_without_a_gradient_only_the_decay_is_left() -> None:
    ours, theirs = matrices(), matrices()
    for kind, parameters in ((Muon, ours), (torch.optim.Muon, theirs)):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        kind(parameters, **SETTINGS).step()
    for start, a, b in zip(matrices(), ours, theirs):
        assert torch.equal(a, b)
        assert torch.allclose(a, start * (1 - 1e-3))
