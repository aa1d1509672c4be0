"""What other lossless coders need for the same streams, in bits, net of fixed headers.

Of JPEG, every coder gets one file: the picture's coefficients as a baseline JPEG without restart
markers. Counted are, for Huffman and `jpegtran`, the bytes between SOS and EOI, and for `-optimize`
also its DHT segments, since they differ from picture to picture (at 64 x 64 they cost more than
they save). For the others it is the whole output less what the same coder writes for a flat grey
picture of the same settings, which flatters them by the few bits that the flat picture itself
takes.

A file of 64 pixels a side tells more of what a coder costs a file than of what it knows of
pictures: adaptive coders have little to adapt to. So all pictures are also put under each other
into one file (`together`), which is the least that these coders need for the set.

Of H.264 there are CAVLC, as the streams have it, and CABAC.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from PIL import Image

from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.config import InputError, JpegConfig, install
from jpeglm.files import told
from jpeglm.syntax.alphabet import EOI
from jpeglm.syntax.avc.nal import IDR, PLAIN, split_nals
from jpeglm.syntax.scan import inspect_scan, write_scan

Coder = Callable[[bytes], int]
"""A JPEG file to its size in bytes under the coder, net of fixed parts."""

_FLAT = "the whole output less that of a flat grey picture of the same settings"
COUNTED = {
    "huffman": "bytes between SOS and EOI",
    "jpegtran-optimize": "bytes between SOS and EOI, and the picture's own DHT segments",
    "jpegtran-arithmetic": "bytes between SOS and EOI",
    "jpeg-xl": _FLAT,
    "lepton": _FLAT,
    "brunsli": _FLAT,
    **dict.fromkeys(("model", "model+grammar"), "every token after BOS, EOS included"),
    "fixed-length": "all codes",
    "cavlc": "slice data of the streams, without start codes, headers and trailing bits",
    "cabac": "cavlc times the ratio that x264 reaches with CABAC on the streams' frames, coded "
    "again at the same quantiser both ways",
}
"""What each coder is charged for."""
NOTES = {
    "model": "what an arithmetic coder driven by the model would write, its weights charged to "
    "nobody",
    "model+grammar": "the model's, with the probability of what would break the file given to what "
    "would not, which a decoder can do as well",
    "huffman": "the files as they are, with the standard's example tables (T.81 K.3) and without "
    "restart markers, against which the others are measured",
    "jpegtran-optimize": "Huffman tables made for each file, which lie in it",
    "jpegtran-arithmetic": "JPEG's own arithmetic coding (T.81 D), which adapts as it goes and "
    "begins every file knowing nothing",
    "jpeg-xl": "the JPEG rebuilt losslessly inside JPEG XL, with tables made for each file",
    "lepton": "arithmetic coding by a fixed model of neighbouring blocks (Horn et al. 2017)",
    "brunsli": "lossless recompression, part of what became JPEG XL",
    "cavlc": "the streams as they are, against which the others are measured",
    "cabac": "H.264's arithmetic coding",
    "fixed-length": "every code in as many bits as the largest needs, against which the others are "
    "measured",
}
"""What each row of a table of coders is, in words."""
TABLES = ("jpegtran-optimize", "jpeg-xl")
"""Coders that write what they have learnt of a file into it."""


def explained(name: str, change: float, together: float | None) -> str:
    """A row's footnote. change: its bits against the base's, -0.1 is a tenth less; together: the
    same where all pictures lie in one file."""
    note = NOTES[name]
    if name in TABLES and change > 0:
        note += ", and in files this small they cost more than they save"
        if together is not None and together < 0:
            note += " (in one file they are paid once)"
    return f"{note}; counted: {COUNTED[name]}"


def without_markers(codec: JpegCodec, stream: bytes) -> tuple[JpegCodec, bytes]:
    """(codec, file): the same coefficients as a standalone JPEG with no restart markers."""
    plain = JpegCodec(JpegConfig(**codec.config.to_dict() | {"restart_interval": 0}))
    if codec.config.restart_interval == 0:
        return plain, codec.wrap(stream)
    tool = shutil.which("jpegtran")
    if not tool:
        raise InputError("jpegtran is missing; install Debian's libjpeg-turbo-progs or the like")
    done = subprocess.run([tool, "-copy", "none"], input=codec.wrap(stream), capture_output=True)
    if done.returncode or done.stderr:
        raise InputError(f"jpegtran refuses a stream: {done.stderr.decode().strip()}")
    return plain, done.stdout


def _after_sos(file: bytes) -> int:
    """Bytes between the end of SOS and EOI."""
    start = file.index(b"\xff\xda")
    return len(file) - start - 2 - int.from_bytes(file[start + 2 : start + 4], "big") - 2


def _segments(file: bytes, marker: int) -> int:
    """Bytes of all segments of one kind before SOS, markers included (T.81 B.1.1.4)."""
    total, at = 0, 2
    while file[at + 1] != 0xDA:
        length = 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        total += length if file[at + 1] == marker else 0
        at += length
    return total


def _jpegtran(option: str) -> Coder:
    tool = shutil.which("jpegtran")
    if not tool:
        raise InputError(
            "jpegtran is not installed; install Debian's libjpeg-turbo-progs or the like"
        )

    def size(file: bytes) -> int:
        out = subprocess.run(
            [tool, "-copy", "none", option], input=file, capture_output=True, check=True
        ).stdout
        return _after_sos(out) + (_segments(out, 0xC4) if option == "-optimize" else 0)

    return size


def _net(encode: Callable[[bytes], bytes], flat: bytes) -> Coder:
    fixed = len(encode(flat))
    return lambda file: len(encode(file)) - fixed


def _jpeg_xl(flat: bytes) -> Coder:
    import imagecodecs

    return _net(lambda file: bytes(imagecodecs.jpegxl_encode_jpeg(file)), flat)


def _brunsli(flat: bytes) -> Coder:
    import imagecodecs

    return _net(lambda file: bytes(imagecodecs.brunsli_encode(file)), flat)


def _lepton(flat: bytes) -> Coder:
    import lepton_jpeg_python as lepton

    return _net(lambda file: lepton.compress_bytes(file), flat)


@cache
def make_coders(config: JpegConfig) -> tuple[dict[str, Coder], dict[str, str]]:
    """(coders, unavailable): those that run here by name, and why the others do not."""
    codec = JpegCodec(JpegConfig(**config.to_dict() | {"restart_interval": 0}))
    grey = Image.new("RGB", (config.width, config.height), (128, 128, 128))
    flat = codec.wrap(codec.encode(grey))
    makers: dict[str, Callable[[], Coder]] = {
        "huffman": lambda: _after_sos,
        "jpegtran-optimize": lambda: _jpegtran("-optimize"),
        "jpegtran-arithmetic": lambda: _jpegtran("-arithmetic"),
        "jpeg-xl": lambda: _jpeg_xl(flat),
        "lepton": lambda: _lepton(flat),
        "brunsli": lambda: _brunsli(flat),
    }
    coders, unavailable = {}, {}
    for name, maker in makers.items():
        try:
            coders[name] = maker()
            coders[name](flat)
        except Exception as error:  # a coder that is absent or broken here is listed, not fatal
            coders.pop(name, None)
            unavailable[name] = _reason(name, error)
    return coders, unavailable


def _reason(name: str, error: Exception) -> str:
    """Why a coder does not run here, in words, and what to do."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed; {install('eval')}"
    if isinstance(error, ImportError):  # imagecodecs tells of codecs that it was built without
        return "the installed imagecodecs was built without it, as its wheels for most systems are"
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode(errors="replace").strip() if error.stderr else "nothing"
        return f"jpegtran, which does it, fails with code {error.returncode} and says: {said}"
    return f"it fails on a flat grey picture: {told(error)}"


def coder_bits(
    codec: JpegCodec, streams: Sequence[bytes]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(bits, unavailable): float64 [pictures] for each coder that runs here."""
    coders, unavailable = make_coders(codec.config)
    files = [without_markers(codec, stream)[1] for stream in streams]
    bits = {name: np.array([8.0 * size(file) for file in files]) for name, size in coders.items()}
    return bits, unavailable


LINES = 16_384
"""Of a file of several pictures, as many as Lepton takes; JPEG has room for 65,535."""


def together_bits(codec: JpegCodec, streams: Sequence[bytes]) -> dict[str, float]:
    """Bits a picture of each coder that runs here, all pictures lying under each other in one file
    (or as few as LINES allows). Empty where a restart interval would reach into the next one."""
    config = codec.config
    interval = config.restart_interval or config.mcus
    if config.mcus % interval:
        return {}
    coders, _ = make_coders(config)
    most = max(1, LINES // config.height)
    files = [stacked(codec, streams[i : i + most]) for i in range(0, len(streams), most)]
    return {name: 8.0 * sum(map(size, files)) / len(streams) for name, size in coders.items()}


def stacked(codec: JpegCodec, streams: Sequence[bytes]) -> bytes:
    """One standalone JPEG without restart markers: the pictures' coefficients under each other."""
    config = codec.config
    interval = config.restart_interval or config.mcus
    changes = {"height": config.height * len(streams), "restart_interval": interval}
    tall = JpegCodec(JpegConfig(**config.to_dict() | changes))
    # At a restart every DC value is coded as such: symbols of one picture follow another's.
    symbols = [inspect_scan(codec.scan(stream), codec.spec)[0] for stream in streams]
    scan = write_scan(np.concatenate(symbols), tall.spec)[0]
    return without_markers(tall, tall.header + scan + EOI)[1]


def avc_bits(codec: AvcCodec, streams: Sequence[bytes]) -> dict[str, np.ndarray]:
    """float64 [clips] of CAVLC as it stands, and of CABAC."""
    cavlc = np.array([codec.symbols.payload_bits(stream) for stream in streams], np.float64)
    ratios = []
    for stream in streams:
        frames = codec.decode(stream)
        sizes = [_slice_bits(codec, codec.x264(frames, cabac)) for cabac in (True, False)]
        ratios.append(sizes[0] / max(sizes[1], 1))
    return {"cavlc": cavlc, "cabac": cavlc * ratios}


def _slice_bits(codec: AvcCodec, annex_b: bytes) -> int:
    """Bits of all slices, less the headers that CAVLC's slices have."""
    total = 8 * sum(len(nal) for nal in split_nals(annex_b) if nal[0] & 31 in (IDR, PLAIN))
    return total - codec.symbols.header_bits
