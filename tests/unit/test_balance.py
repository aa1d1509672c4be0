"""Balanced crops: no folder above its share, small ones untouched, the same in any container."""

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.balance import balanced, folder_of
from jpeglm.data.open import Dataset
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.files import read_json

CODEC = make_codec({"codec": "jpeg", "width": 16, "height": 16, "quality": 25})
SIZES = {"shop": 12, "stars": 4, "rooms": 3, "sea": 2}
CONFIG = PrepareConfig(crops=12, split="folder", balance=0.4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for folder, count in SIZES.items():
        for number in range(count + 1):
            side = "validation" if number == count else "train"
            path = home / side / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return home


def streams(out: Path, split: str) -> dict[str, bytes]:
    return {key: stream for key, stream, *_ in Dataset(out).streams(split)}


def by_folder(found: dict[str, bytes]) -> Counter[str]:
    return Counter(folder_of(key, "folder") for key in found)


@pytest.mark.parametrize("share", [0.2, 0.25, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("crops", [24, 64, 400])
def test_no_folder_is_above_its_share_and_nothing_is_lost_without_need(crops: int, share: float):
    pictures = {"shop": 1393, "stars": 512, "people": 506, "food": 482, "sea": 285, "mixed": 110}
    given = balanced(pictures, crops, share)
    made = {name: pictures[name] * count for name, count in given.items()}
    total = sum(made.values())
    assert max(made.values()) <= share * total
    assert given["mixed"] == crops and max(given.values()) == crops
    for name, count in given.items():
        if count < crops:  # one crop more of the pictures of this folder, and it were above
            more = pictures[name]
            assert made[name] + more > share * (total + more)


def test_what_whole_crops_cannot_keep_is_refused():
    with pytest.raises(InputError, match=r"lie in 3 folders.*--balance 0\.334 or more"):
        balanced({"a": 1, "b": 1, "c": 1}, 8, 0.3)
    with pytest.raises(InputError, match=r"lie in 1 folder, .*leave --balance out"):
        balanced({"": 7}, 8, 0.3)
    with pytest.raises(InputError, match="1000 pictures in a is more already; use more --crops"):
        balanced({"a": 1000, **dict.fromkeys("bcdef", 1)}, 8, 0.2)
    assert balanced({"a": 1000, **dict.fromkeys("bcdef", 1)}, 1000, 0.2)["a"] == 1
    assert set(balanced(dict.fromkeys("abcdefghij", 3), 7, 0.1).values()) == {7}


def test_prepared_data_are_balanced_and_held_out_ones_are_not(corpus: Path, tmp_path: Path):
    info = prepare(corpus, tmp_path / "even", CODEC, CONFIG, workers=1)
    all_of_them = PrepareConfig(crops=12, split="folder")
    prepare(corpus, tmp_path / "all", CODEC, all_of_them, workers=1)
    given = info["crops_by_folder"]
    assert (
        given
        == balanced(SIZES, 12, 0.4)
        == read_json(tmp_path / "even" / "dataset.json")["crops_by_folder"]
    )
    even, full = (streams(tmp_path / name, "train") for name in ("even", "all"))
    assert by_folder(even) == {name: SIZES[name] * count for name, count in given.items()}
    assert max(by_folder(even).values()) <= 0.4 * len(even) < by_folder(full)["shop"]
    assert even.items() <= full.items()  # the first of the same crops
    held_out = [streams(tmp_path / name, "validation") for name in ("even", "all")]
    assert held_out[0] == held_out[1]
    assert "crops_by_folder" not in Dataset(tmp_path / "all").info


def test_folders_inside_tars_count_the_same(corpus: Path, tmp_path: Path):
    for side in ("train", "validation"):
        paths = sorted((corpus / side).rglob("*.png"))
        for part in (0, 1):
            tar = tmp_path / "tars" / side / f"{part}.tar"
            tar.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(tar, "w") as packed:
                for path in paths[part::2]:
                    packed.add(path, path.relative_to(corpus / side))
    info = prepare(tmp_path / "tars", tmp_path / "out", CODEC, CONFIG, workers=1)
    assert info["crops_by_folder"] == balanced(SIZES, 12, 0.4)
    assert (
        by_folder(streams(tmp_path / "out", "train"))["shop"]
        == 12 * info["crops_by_folder"]["shop"]
    )


def test_rows_of_tables_lie_in_the_folder_of_their_table(corpus: Path, tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for folder in SIZES:
        images = [path.read_bytes() for path in sorted((corpus / "train" / folder).glob("*"))]
        place = tmp_path / "tables" / folder / "part.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(pa.table({"image": images}), place)
    config = PrepareConfig(crops=12, split="train", balance=0.4)
    info = prepare(tmp_path / "tables", tmp_path / "out", CODEC, config, workers=1)
    assert info["crops_by_folder"] == balanced(SIZES, 12, 0.4)
    assert info["streams"]["train"] == sum(
        SIZES[name] * count for name, count in info["crops_by_folder"].items()
    )


def test_a_balance_of_nothing_is_refused(corpus: Path, tmp_path: Path):
    with pytest.raises(InputError, match="add --crops"):
        prepare(corpus, tmp_path / "out", CODEC, PrepareConfig(balance=0.4))
    with pytest.raises(InputError, match="balance"):
        PrepareConfig(balance=0)
    prepare(corpus, tmp_path / "out", CODEC, CONFIG, workers=1)
    with pytest.raises(InputError, match=r"other settings: balance 0\.4 is now 1;"):
        prepare(corpus, tmp_path / "out", CODEC, PrepareConfig(crops=12, split="folder"))


def test_folders_of_items():
    assert folder_of("shop/a/1.jpg", "hash") == "shop"
    assert folder_of("train/shop/1.jpg", "folder") == "shop"
    assert folder_of("train/00001.tar/shop/1.jpg", "folder") == "shop"
    assert folder_of("part.parquet:7", "hash") == folder_of("1.jpg", "hash") == ""
