"""VAE and VQ-VAE against hand-worked numbers, torch.distributions and vector-quantize-pytorch."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from jpeglm.codecs import open_codec  # noqa: E402
from jpeglm.config import InputError  # noqa: E402
from jpeglm.data.settings import PrepareConfig  # noqa: E402
from jpeglm.evaluation.quality import psnr  # noqa: E402
from jpeglm.folders import only_one  # noqa: E402
from jpeglm.models.autoencoder import flops_per_picture, to_pictures, to_tensor  # noqa: E402
from jpeglm.models.vae import Vae, VaeConfig, gaussian_kl, gaussian_nll  # noqa: E402
from jpeglm.models.vqvae import Quantiser, VqVae, VqVaeConfig, usage  # noqa: E402
from jpeglm.training.autoencoder import (  # noqa: E402
    AutoencoderConfig,
    Job,
    start,
    step,
    train_autoencoder,
)

SMALL = {"channels": 8, "blocks": 1, "downsampling": 4}


def quantiser(book, ema=0.0, **options):
    layer = Quantiser(len(book), len(book[0]), ema, **options)
    with torch.no_grad():
        layer.codebook.copy_(torch.tensor(book))
    return layer


def test_quantiser_on_a_hand_worked_example():
    """z = (1, 1) and (0, 4); nearest of (0, 0), (3, 3) are 0 and 1.

    Distances² 2 against 8, and 16 against 10. Means over the 4 numbers: (1 + 1 + 9 + 1) / 4 = 3.
    """
    layer = quantiser([[0.0, 0.0], [3.0, 3.0]])
    z = torch.tensor([[[[1.0, 0.0]], [[1.0, 4.0]]]], requires_grad=True)
    out = layer(z)
    assert out.codes.tolist() == [[[0, 1]]]
    assert out.z.detach().tolist() == [[[[0.0, 3.0]], [[0.0, 3.0]]]]
    assert out.codebook_loss.item() == out.commitment_loss.item() == 3.0
    # Straight through: the gradient at z_q arrives at z_e unchanged.
    weight = torch.tensor([[[[2.0, -1.0]], [[0.5, 7.0]]]])
    (grad,) = torch.autograd.grad((out.z * weight).sum(), z, retain_graph=True)
    assert (grad == weight).all()
    # The commitment loss pulls z to its code, 2 (z - q) / 4; the codebook loss moves only codes.
    (grad,) = torch.autograd.grad(out.commitment_loss, z, retain_graph=True)
    assert grad.tolist() == [[[[0.5, -1.5]], [[0.5, 0.5]]]]
    grads = torch.autograd.grad(out.codebook_loss, [z, layer.codebook], allow_unused=True)
    assert grads[0] is None and grads[1].tolist() == [[-0.5, -0.5], [1.5, -0.5]]


def test_moving_averages_on_a_hand_worked_example():
    layer = quantiser([[0.0], [10.0]], ema=0.5)
    layer.train()
    layer.steps += 1  # the first batch would replace the codebook
    z = torch.tensor([1.0, 3.0, 9.0]).reshape(1, 1, 1, 3)
    layer(z)
    # uses = (2, 1) / 2, sums = (4, 9) / 2: the averages' ratio is the batch's mean.
    assert layer.codebook.flatten().tolist() == [2.0, 9.0]
    layer(torch.tensor([4.0, 4.0, 9.0]).reshape(1, 1, 1, 3))
    # uses = (0.5 + 1, 0.25 + 0.5), sums = (1 + 4, 2.25 + 4.5)
    assert layer.codebook.flatten().tolist() == pytest.approx([10 / 3, 9.0])


def test_codes_and_losses_are_those_of_vector_quantize_pytorch():
    peer = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    theirs = peer.VectorQuantize(dim=6, codebook_size=20, decay=0.9, commitment_weight=1.0)
    ours = Quantiser(20, 6, ema=0.9)
    with torch.no_grad():
        ours.codebook.copy_(theirs.codebook)
    z = torch.randn(3, 5, 5, 6)
    expected, codes, loss = theirs.eval()(z.flatten(1, 2))
    out = ours.eval()(z.permute(0, 3, 1, 2))
    assert (out.codes.flatten(1) == codes).all()
    nearest = out.z.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(nearest, expected, atol=1e-6, rtol=0)
    theirs.train()
    loss = theirs(z.flatten(1, 2))[2]
    torch.testing.assert_close(out.commitment_loss, loss.squeeze())


def test_dead_codes_restart_in_the_data():
    torch.manual_seed(0)
    layer = Quantiser(8, 2, ema=0.8, restart_below=0.1)
    layer.train()
    points = torch.tensor([[float(i), 5.0 * (i % 2)] for i in range(8)])
    for _ in range(60):
        z = points[torch.randint(8, (64,))].T.reshape(1, 2, 8, 8) + 100
        layer(z)
    codes = layer.assign(points + 100)
    assert usage(codes, 8) == pytest.approx((1.0, 8.0))
    assert usage(torch.tensor([0, 0, 1, 1]), 4) == pytest.approx((0.5, 2.0))


def test_kl_and_likelihood():
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    # ½ (1 + 1 − 0 − 1) + ½ (0 + 4 − ln 4 − 1)
    assert gaussian_kl(mean, log_variance).item() == pytest.approx(0.5 + 1.5 - math.log(2))
    p = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    q = torch.distributions.Normal(torch.zeros(1, 2), torch.ones(1, 2))
    expected = torch.distributions.kl_divergence(p, q).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)
    x, centre, log_scale = torch.randn(3, 2, 2), torch.randn(3, 2, 2), torch.tensor(-0.7)
    normal = torch.distributions.Normal(centre, log_scale.exp())
    torch.testing.assert_close(
        gaussian_nll(x, centre, log_scale), -normal.log_prob(x).flatten(1).sum(1)
    )


def test_the_elbo_is_a_lower_bound():
    """A linear VAE whose evidence is known: x = z + noise, so p(x) = N(0, 1 + s²)."""
    x = torch.tensor([[0.8]])
    log_scale = torch.tensor(math.log(0.5))
    evidence = torch.distributions.Normal(0.0, math.sqrt(1.25)).log_prob(x).item()

    def elbo(mean, variance):
        # E[log p(x | z)] in closed form: the likelihood at the mean, less variance / (2 s²).
        at_mean = -gaussian_nll(x, torch.tensor([[mean]]), log_scale).item()
        kl = gaussian_kl(torch.tensor([[mean]]), torch.tensor([[math.log(variance)]])).item()
        return at_mean - variance / (2 * 0.25) - kl

    posterior = (0.8 / 1.25, 0.2)
    assert elbo(*posterior) == pytest.approx(evidence, abs=1e-5)
    assert elbo(0.0, 1.0) < evidence and elbo(0.64, 0.4) < evidence


def test_loss_of_the_vae_adds_up_and_sampling_repeats():
    torch.manual_seed(0)
    model = Vae(VaeConfig(16, 8, latent=5, **SMALL)).eval()
    x = torch.rand(4, 3, 8, 16) * 2 - 1
    total, parts = model.loss(x)
    torch.testing.assert_close(total, parts["nll"] + parts["kl"])
    assert (model.sample(3, 7) == model.sample(3, 7)).all()
    assert model.sample(3, 7).shape == (3, 3, 8, 16)


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16) * 2 - 1
    for model in (
        VqVae(VqVaeConfig(codes=8, code_dim=4, ema=0.0, **SMALL)),
        Vae(VaeConfig(16, 16, latent=4, **SMALL)),
    ):
        model.loss(x)[0].backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        assert all(p.grad.abs().sum() > 0 for p in model.encoder.parameters())


def test_pixels_to_tensor_and_back():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    assert (to_pictures(to_tensor(pixels)) == pixels).all()
    assert psnr(pixels, pixels).tolist() == [100 + 10 * math.log10(255**2)] * 2
    flat = np.full((2, 3, 4, 4, 3), 100, np.uint8)
    assert psnr(flat, flat + 5) == pytest.approx(np.full((2, 3), 10 * math.log10(255**2 / 25)))


def test_flops_of_a_known_network():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1))
    assert flops_per_picture(model, 8, 4) == 3 * 2 * (3 * 5 * 9) * 8 * 4


@pytest.fixture(scope="module")
def crops(pictures):
    rng = np.random.default_rng(0)
    found = []
    for picture in pictures[:4]:
        whole = np.asarray(picture)
        for _ in range(24):
            y, x = (int(rng.integers(0, side - 16)) for side in whole.shape[:2])
            found.append(whole[y : y + 16, x : x + 16])
    return np.stack(found)


@pytest.mark.parametrize("kind", ["vqvae", "vae"])
def test_training_learns_stops_and_goes_on(kind, crops, tmp_path):
    if kind == "vqvae":
        model = VqVaeConfig(codes=32, code_dim=4, **SMALL)
    else:
        model = VaeConfig(16, 16, latent=8, **SMALL)

    def train(out, steps, held_out=crops[80:], **changes):
        settings = {"batch": 16, "eval_every": 20, "log_every": 5, "warmup": 5, "threads": 1}
        config = AutoencoderConfig(steps=steps, **settings | changes)
        return train_autoencoder(crops[:80], held_out, tmp_path / out, model, config)

    whole = train("whole", 60)
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").open()]
    losses = [row["loss"] for row in rows if "loss" in row]
    measured = [row["objective"] for row in rows if "objective" in row]
    assert losses[-1] < losses[0] and whole["objective"] == min(measured)
    assert list((tmp_path / "whole" / "samples").glob("step-*.png"))
    text = (tmp_path / "whole" / "README.md").read_text()
    best = min((row for row in rows if "psnr" in row), key=lambda row: row["objective"])
    assert f"| step {best['step']} (best, in model/" in text and f"| {best['psnr']:.2f} |" in text
    assert "Step 60 of 60" in text and "It is finished" in text
    assert f"jpeglm train-{kind} DATA --out {tmp_path / 'whole'} --size 16x16" in text
    assert {"curves.png", "samples.jpg", "report.html"} <= set(os.listdir(tmp_path / "whole"))

    class Stopped(Exception):
        pass

    def stop(step, total, note):
        if step == 47:
            raise Stopped

    config = AutoencoderConfig(steps=60, batch=16, eval_every=20, log_every=5, warmup=5, threads=1)
    with pytest.raises(Stopped):
        train_autoencoder(crops[:80], crops[80:], tmp_path / "cut", model, config, progress=stop)
    assert "It was training when this page was written" in (tmp_path / "cut/README.md").read_text()
    train("cut", 60)
    again = [json.loads(line) for line in (tmp_path / "cut/metrics.jsonl").open()]
    assert [row.get("loss") for row in again] == [row.get("loss") for row in rows]
    with pytest.raises(InputError, match="was started with data"):
        train_autoencoder(crops[:40], crops[80:], tmp_path / "cut", model, config)
    folder = tmp_path / "whole" / "model"
    if kind == "vqvae":
        codec = open_codec(folder)
        assert codec.units == 16 and codec.size == 32
        assert open_codec(folder, 32).units == 64  # a convolutional codec takes any size
    else:
        with pytest.raises(InputError, match="which writes no codes"):
            open_codec(folder)


FLAT = np.zeros((8, 16, 16, 3), np.uint8)
TINY = VaeConfig(16, 16, latent=4, **SMALL)
ONE = AutoencoderConfig(steps=1, batch=2, threads=1)


def job_of(train: np.ndarray, out: Path, config: AutoencoderConfig) -> Job:
    origin = {"path": "DATA", "views": PrepareConfig()}
    return start(train, train, out, TINY, config, origin)


def test_a_step_takes_other_pictures_and_mirrors_some(crops: np.ndarray, tmp_path: Path) -> None:
    """Left to right, as a picture may well be; which ones follows from the step's number."""
    job = job_of(crops, tmp_path, AutoencoderConfig(steps=9, batch=16, threads=1))
    seen, loss = [], job.model.loss
    job.model.loss = lambda x: seen.append(to_pictures(x)) or loss(x)  # type: ignore[method-assign]
    for job.state.step in (0, 1, 2, 0):
        step(job, 1e-3)
    upright, mirrored = ({p.tobytes() for p in ps} for ps in (crops, crops[:, :, ::-1]))
    kinds = [(p.tobytes() in upright, p.tobytes() in mirrored) for batch in seen for p in batch]
    assert all(one or other for one, other in kinds)
    assert 0.2 < sum(one for one, _ in kinds) / len(kinds) < 0.8
    assert len({batch.tobytes() for batch in seen}) == 3 and (seen[0] == seen[3]).all()


def test_settings_reach_the_optimizer(crops: np.ndarray, tmp_path: Path) -> None:
    settings = {"learning_rate": 0.5, "warmup": 10, "weight_decay": 0.25, "clip": 1e-3}
    config = AutoencoderConfig(steps=9, batch=4, eval_images=5, threads=1, **settings)
    assert [config.rate(*at) for at in ((0, 0), (9, 0), (50, 0.5), (99, 1), (99, 2))] == (
        pytest.approx([0.05, 0.5, 0.275, 0.05, 0.05])
    )
    job = job_of(crops, tmp_path, config)
    assert len(job.held_out) == 5
    step(job, 0.125)
    (group,) = job.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.125, 0.25)
    gradients = [p.grad for p in job.model.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-3)


def test_the_budget_that_is_used_up_first_ends_a_run(tmp_path: Path) -> None:
    """And what is left to evaluate then is evaluated and can be gone on from; a resumed run's
    minutes count on."""
    config = replace(ONE, steps=3, minutes=0.5, eval_every=2)
    assert train_autoencoder(FLAT, FLAT, tmp_path, TINY, config)["steps"] == 3
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["state"]["step"] == 3 and (tmp_path / "samples/step-000003.png").exists()
    saved["state"]["seconds"] = 3600.0
    torch.save(saved, tmp_path / "state.pt")
    config = replace(config, steps=200, minutes=60.001)
    ended = train_autoencoder(FLAT, FLAT, tmp_path, TINY, config)
    assert 3 < ended["steps"] < 200 and not ended["stopped"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert rows[-1]["step"] == ended["steps"] and rows[-1]["seconds"] >= 3600


def test_other_settings_data_or_networks_are_another_run(tmp_path: Path) -> None:
    train_autoencoder(FLAT, FLAT, tmp_path, TINY, ONE)
    before = (tmp_path / "state.pt").read_bytes()
    other = FLAT.copy()
    other[-1] = 1
    for train, model, config, match in (
        (FLAT, TINY, replace(ONE, batch=3), "batch 2 .now 3"),
        (FLAT, TINY, replace(ONE, learning_rate=0.1), "learning_rate"),
        (FLAT, TINY, replace(ONE, seed=1), "seed 0 .now 1"),
        (FLAT, replace(TINY, latent=3), ONE, "another model .latent is"),
        (FLAT, VqVaeConfig(), ONE, "started with kind vae, this is vqvae"),
        (other, TINY, ONE, "started with data"),
    ):
        with pytest.raises(InputError, match=match):
            train_autoencoder(train, FLAT, tmp_path, model, replace(config, steps=9))
    assert (tmp_path / "state.pt").read_bytes() == before


def test_the_state_of_another_run_is_not_taken(tmp_path: Path) -> None:
    """Though it has the same shape. One of an older version does not say whose it is."""
    for seed in (0, 1):
        train_autoencoder(FLAT, FLAT, tmp_path / str(seed), TINY, replace(ONE, seed=seed))
    file, more = tmp_path / "0/state.pt", replace(ONE, steps=2)
    os.replace(tmp_path / "1/state.pt", file)
    with pytest.raises(
        InputError, match=r"state\.pt: it is another run's: seed is 1, not 0; train"
    ):
        train_autoencoder(FLAT, FLAT, tmp_path / "0", TINY, more)
    saved = torch.load(file, weights_only=True)
    del saved["run"]
    torch.save(saved, file)
    assert train_autoencoder(FLAT, FLAT, tmp_path / "0", TINY, more)["steps"] == 2


class Poison:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("poisoned",)


def test_a_state_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train_autoencoder(FLAT, FLAT, tmp_path / "run", TINY, ONE)
    torch.save({"model": Poison()}, "run/state.pt")
    with pytest.raises(InputError, match="cannot resume from"):
        train_autoencoder(FLAT, FLAT, tmp_path / "run", TINY, replace(ONE, steps=2))
    assert not Path("poisoned").exists()


def test_a_state_is_replaced_and_never_written_into(tmp_path: Path) -> None:
    """A kill in between would leave half of it, and nothing to go on from."""
    train_autoencoder(FLAT, FLAT, tmp_path / "run", TINY, ONE)
    os.link(tmp_path / "run/state.pt", tmp_path / "first.pt")
    before = (tmp_path / "first.pt").read_bytes()
    train_autoencoder(FLAT, FLAT, tmp_path / "run", TINY, replace(ONE, steps=2))
    assert (tmp_path / "first.pt").read_bytes() == before
    assert (tmp_path / "run/state.pt").read_bytes() != before


@pytest.mark.parametrize("every", [1, 1000])
def test_a_run_that_runs_away_is_ended(tmp_path: Path, every: int) -> None:
    """By the log or by an evaluation, before what came of it is what is gone on from."""
    config = replace(ONE, steps=60, learning_rate=1000.0, clip=0.0, warmup=0, log_every=every)
    noise = np.random.default_rng(0).integers(0, 256, FLAT.shape, dtype=np.uint8)
    with pytest.raises(
        InputError, match=r"the (loss|objective) is .* at step .*; lower --learning"
    ):
        train_autoencoder(noise, noise, tmp_path / "run", TINY, config)
    assert not (tmp_path / "run/state.pt").exists()


def test_codecs_of_pictures_that_are_not_square(tmp_path: Path) -> None:
    pixels = np.zeros((4, 16, 32, 3), np.uint8)
    train_autoencoder(pixels, pixels, tmp_path / "run", VqVaeConfig(codes=8, **SMALL), ONE)
    codec = open_codec(tmp_path / "run/model")
    assert codec.config.to_dict().items() >= {"width": 32, "height": 16}.items()
    assert (codec.decode(codec.encode(pixels[0])).size) == (32, 16)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("metrics.jsonl", lambda data: b'{"ste\n' + data, "line 1 of .*metrics.jsonl is no row"),
        ("state.pt", lambda data: data[: len(data) // 2], "cannot resume from .*state.pt"),
    ],
)
def test_what_a_run_goes_on_from_is_named_where_it_is_damaged(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes], said: str
) -> None:
    pixels = np.zeros((8, 16, 16, 3), np.uint8)
    config = AutoencoderConfig(steps=1, batch=2, threads=1)
    train_autoencoder(pixels, pixels, tmp_path / "run", VaeConfig(16, 16), config)
    file = tmp_path / "run" / name
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InputError, match=said):
        train_autoencoder(
            pixels, pixels, tmp_path / "run", VaeConfig(16, 16), replace(config, steps=2)
        )


def test_a_run_folder_that_tensorboard_cannot_name(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 16, 3), np.uint8)
    config = AutoencoderConfig(steps=1, batch=2, threads=1)
    with pytest.raises(InputError, match=r"not UTF-8, as .*caf\\xe9"):
        train_autoencoder(pixels, pixels, tmp_path / "caf\udce9", VaeConfig(16, 16), config)


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    """The second would remove what the first has half-written."""
    pixels = np.zeros((8, 16, 16, 3), np.uint8)
    config = AutoencoderConfig(steps=1, batch=2, threads=1)
    (tmp_path / "run").mkdir()
    with (
        only_one(tmp_path / "run", "training"),
        pytest.raises(InputError, match=r"another training is writing to .*run; wait for it"),
    ):
        train_autoencoder(pixels, pixels, tmp_path / "run", VaeConfig(16, 16), config)
    assert not list((tmp_path / "run").iterdir())
    train_autoencoder(pixels, pixels, tmp_path / "run", VaeConfig(16, 16), config)
    with only_one(tmp_path / "run", "training"):
        pass
