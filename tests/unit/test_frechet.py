"""Fréchet and kernel distances against formulas and code that no one here wrote."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from jpeglm.config import InputError
from jpeglm.evaluation.frechet import bootstrap, compare, frechet_distance, kernel_distance

scipy = pytest.importorskip("scipy")


def features(n, width, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(width, width))
    return (rng.normal(size=(n, width)) @ mix + shift).astype(np.float32)


@pytest.mark.parametrize(("n", "m", "width"), [(500, 400, 20), (30, 40, 64), (90, 40, 64)])
def test_the_textbook_formula(n, m, width):
    """Dowson and Landau 1982 by scipy's matrix square root, on either side of N = d."""
    a, b = features(n, width, 0).astype(np.float64), features(m, width, 1, 0.5).astype(np.float64)
    covariance = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariance[0] @ covariance[1])
    gap = a.mean(0) - b.mean(0)
    expected = gap @ gap + np.trace(covariance[0] + covariance[1] - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(
        expected, rel=1e-3 if min(n, m) < width else 1e-8
    )


def test_torchmetrics_and_torch_fidelity_agree():
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = features(300, 24, 2), features(260, 24, 3, 0.3)
    moments = []
    for x in (a, b):
        tensor = torch.from_numpy(x).double()
        moments += [tensor.mean(0), tensor.T.cov()]
    theirs = float(fid._compute_fid(moments[0], moments[1], moments[2], moments[3]))
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)
    same = features(260, 24, 4)
    ours, _ = kernel_distance(same, b, size=260)
    x, y = torch.from_numpy(same).double(), torch.from_numpy(b).double()
    assert ours == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-9)


def test_torch_fidelity_agrees():
    pytest.importorskip("torch_fidelity", reason="the extra fid is not installed")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    torch = pytest.importorskip("torch")
    a, b = features(300, 24, 2), features(260, 24, 3, 0.3)
    moments = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-3)


def test_known_values():
    """Two Gaussians on a line: (1 − 0)² + (2 − 1)² = 2, up to sampling error."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (200_000, 1)), rng.normal(1, 2, (200_000, 1))
    assert frechet_distance(a, b) == pytest.approx(2, abs=0.05)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    x = features(400, 8, 5)
    assert abs(kernel_distance(x[:200], x[200:])[0]) < kernel_distance(x[:200], x[200:] + 2)[0]


def test_the_interval_is_as_wide_as_other_draws_spread():
    low, high = bootstrap(features(200, 6, 0), features(200, 6, 1, 0.7), resamples=40)
    others = [
        frechet_distance(features(200, 6, 10 + i), features(200, 6, 50 + i, 0.7)) for i in range(40)
    ]
    deviation = (high - low) / 2 / 1.96
    assert 0.6 < deviation / np.std(others) < 1.7


@pytest.mark.parametrize(("m", "n", "size"), [(300, 300, 1000), (150, 300, 1000), (300, 300, 100)])
@pytest.mark.parametrize(("shift", "most"), [(0.0, 3.0), (0.7, 1.6)])
def test_the_error_of_a_kernel_distance_is_how_other_draws_spread(m, n, size, shift, most):
    """A jackknife is never too low in the mean (Efron & Stein 1981), and too high between sets that
    hardly differ."""
    pairs = [
        kernel_distance(features(m, 6, 10 + i), features(n, 6, 500 + i, shift), 8, size)
        for i in range(40)
    ]
    values, errors = np.array(pairs).T
    assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < most


def test_the_jackknife_leaves_each_picture_out_once():
    from jpeglm.evaluation.frechet import _mmd

    def unbiased(x, y):
        """Gretton et al. 2012, equation 3, for any two counts."""

        def kernel(p, q):
            return (p @ q.T / x.shape[1] + 1) ** 3

        (m, n), xx, yy = (len(x), len(y)), kernel(x, x), kernel(y, y)
        same = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
        return same - 2 * kernel(x, y).mean()

    x, y = features(12, 5, 0), features(12, 5, 1, 0.4)
    value, of_x, of_y = _mmd(x, y)
    assert value == pytest.approx(unbiased(x, y))
    for left, wanted in (
        ([unbiased(np.delete(x, i, 0), y) for i in range(12)], of_x),
        ([unbiased(x, np.delete(y, i, 0)) for i in range(12)], of_y),
    ):
        assert wanted == pytest.approx(11 / 12 * ((left - np.mean(left)) ** 2).sum())


def test_too_few_pictures_are_said():
    with pytest.raises(InputError, match="at least three pictures on each side; there are 2 and 9"):
        kernel_distance(np.ones((2, 3)), np.ones((9, 3)))
    with pytest.raises(InputError, match="at least two pictures on each side; there are 1 and 5"):
        frechet_distance(np.ones((1, 3)), np.ones((5, 3)))
    with pytest.raises(InputError, match="use one extractor"):
        frechet_distance(np.ones((4, 3)), np.ones((5, 4)))
    row = compare(features(10, 32, 0), features(10, 32, 1))
    assert "10 pictures are fewer than the 32 dimensions" in row["warning"]
    assert "warning" not in compare(features(50, 6, 0), features(50, 6, 1))


def test_resnet50_is_keras_resnet50(tmp_path):
    """The folded network against torch's layers put together as Keras documents them."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file
    from torch import nn

    from jpeglm.evaluation.features import ResNet50

    torch.manual_seed(0)
    weights, stages = {}, []
    widths = {2: (64, 256), 3: (128, 512), 4: (256, 1024), 5: (512, 2048)}

    def conv(name, inside, outside, size, stride=1, padding=0):
        layer = nn.Conv2d(inside, outside, size, stride, padding)
        with torch.no_grad():
            layer.weight.mul_(1.5)
        weights[f"{name}.weight"], weights[f"{name}.bias"] = layer.weight.data, layer.bias.data
        return layer

    class Block(nn.Module):
        def __init__(self, name, inside, middle, outside, stride, shortcut):
            super().__init__()
            self.body = nn.Sequential(
                conv(f"{name}.2a", inside, middle, 1, stride), nn.ReLU(),
                conv(f"{name}.2b", middle, middle, 3, 1, 1), nn.ReLU(),
                conv(f"{name}.2c", middle, outside, 1),
            )  # fmt: skip
            self.side = conv(f"{name}.1", inside, outside, 1, stride) if shortcut else None

        def forward(self, x):
            return torch.relu(self.body(x) + (self.side(x) if self.side else x))

    inside = 64
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3)):
        middle, outside = widths[stage]
        for i in range(count):
            stride = 2 if i == 0 and stage > 2 else 1
            stages.append(Block(f"{stage}{'abcdef'[i]}", inside, middle, outside, stride, i == 0))
            inside = outside
    network = nn.Sequential(
        conv("conv1", 3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages
    ).eval()
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "w.safetensors")
    ours = ResNet50(tmp_path / "w.safetensors", "cpu", 64)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().flip(1)
    x = x - torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        expected = network(x).mean((2, 3)).numpy()
    np.testing.assert_allclose(ours(pictures), expected, rtol=1e-3, atol=1e-3)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == ResNet50.shapes()
    # What is no such file is told in one sentence that names it and what makes one.
    whole = (tmp_path / "w.safetensors").read_bytes()
    cases = {"gone": None, "empty": b"", "words": b"no weights at all", "cut": whole[:-1000]}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{tmp_path / name}\b"):
            ResNet50(tmp_path / name)
    wrong = {
        "lacking": {k: v for k, v in weights.items() if k != "4f.2c.bias"},
        "small": weights | {"4f.2c.bias": torch.zeros(1023)},
        "half": weights | {"4f.2c.bias": torch.zeros(1024, dtype=torch.float16)},
        "undefined": weights | {"4f.2c.bias": torch.full((1024,), torch.nan)},
    }
    for name, changed in wrong.items():
        save_file({k: v.contiguous() for k, v in changed.items()}, tmp_path / name)
        with pytest.raises(InputError, match=r"4f\.2c\.bias .* recipes/data/resnet50\.py") as told:
            ResNet50(tmp_path / name)
        assert str(tmp_path / name) in str(told.value)
    with pytest.raises(InputError, match="there is no file"):
        ResNet50(tmp_path)


def test_inception_wants_weights_that_it_knows(tmp_path):
    """The extra `fid`, which asks for torchvision of the same build as torch."""
    if importlib.util.find_spec("torch_fidelity") is None:  # what it imports may not fit torch
        pytest.skip("needs torch-fidelity, the extra fid")
    from jpeglm.evaluation.features import Inception

    with pytest.raises(InputError, match=r"there is no file|torchvision does not fit"):
        Inception(tmp_path / "gone", "cpu")
    (tmp_path / "words").write_text("no weights")
    with pytest.raises(InputError, match=r"holds no weights of|torchvision does not fit") as told:
        Inception(tmp_path / "words", "cpu")
    assert len(str(told.value)) < 400


def test_half_size_leaves_the_active_part():
    from jpeglm.evaluation.sets import active_part, half_size

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 32, 16, 3), dtype=np.uint8)
    small = half_size(pictures)
    assert small.shape == pictures.shape
    inside = active_part(small)
    assert inside.shape == (3, 16, 8, 3)
    total = small.astype(int).sum()
    assert total == inside.astype(int).sum() > 0  # all around is black
    expected = Image.fromarray(pictures[1]).resize((8, 16), Image.Resampling.LANCZOS)
    assert (inside[1] == np.asarray(expected)).all()
