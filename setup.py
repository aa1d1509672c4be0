"""What pyproject.toml cannot say: an index shows the README far from its repository.

So the links and pictures of the package's long description lead to the repository that the
project's URLs name, at the tag of this version: they still fit when the main branch has gone on.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
(VERSION,) = re.findall(
    r'^__version__ = "(.+)"$', (ROOT / "src/jpeglm/__init__.py").read_text(), re.MULTILINE
)


def absolute(link: re.Match[str]) -> str:
    kind = "raw" if link["picture"] else "blob"
    return f"{link['picture']}[{link['words']}]({PROJECT['urls']['Repository']}/{kind}/v{VERSION}/"


README = (ROOT / "README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?!\w+:|#)", absolute, README),
    long_description_content_type="text/markdown",
)
