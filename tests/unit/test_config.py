"""Settings: validation in words, JSON round trip, fingerprints."""

import json

import pytest

from jpeglm.config import PAPER_JPEG, InputError, JpegConfig, Sampling, fingerprint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 60}, "width is 60; at 4:2:0 it must be a multiple of 16 from 16 to 65520"),
        ({"height": 8}, "height is 8"),
        ({"height": 0, "subsampling": "gray"}, "multiple of 8"),
        ({"quality": 0}, "quality is 0; it must be from 1 to 100"),
        ({"quality": 101}, "quality is 101"),
        ({"subsampling": "4:1:1"}, "choose one of 4:2:0, 4:2:2, 4:4:4, gray"),
        ({"restart_interval": -1}, "restart_interval is -1"),
        ({"restart_interval": 65536}, "restart_interval is 65536"),
        ({"fit": "stretch"}, "choose one of crop, top, pad"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        JpegConfig(**settings)


def test_json_round_trip():
    config = JpegConfig(48, 24, 60, "4:2:2", 3, "pad")
    assert JpegConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(InputError, match="JpegConfig has no setting colour; it knows fit, height"):
        JpegConfig.from_dict({"colour": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**63])
def test_what_is_wrong_with_a_number_is_said(value):
    with pytest.raises(InputError, match=r"temperature is .*; it must be finite and below 2\^63"):
        Sampling.from_dict({"temperature": value})
    with pytest.raises(InputError, match="temperature is 'hot'; it must be float"):
        Sampling.from_dict({"temperature": "hot"})


def test_mcus():
    assert PAPER_JPEG.mcus == 256
    assert JpegConfig(32, 24, subsampling="4:2:2").mcus == 6
    assert JpegConfig(32, 24, subsampling="gray").mcus == 12


def test_fingerprint_depends_on_values_alone():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
