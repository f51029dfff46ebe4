"""Configurations that ship: files of ``configs/``, which the command line finds by name.

A wheel has them as ``automix/configs``; in a checkout they lie beside the package.
"""

import itertools
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from automix.errors import ConfigError

KINDS_OF_SECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"agent": ("agent",), "task": ("finetune",)}
)
"""Folders of the files that hold one section, by the flag that names them: ``--task FILE``."""

_SUFFIXES = (".yaml", ".yml")
_FOLDER = "configs"
# In a list, beside the name.
_LONGEST_SENTENCE = 100


def shipped_folder() -> Path:
    """Return the folder of the configurations that ship."""
    package = Path(__file__).parent
    installed = package / _FOLDER
    return installed if installed.is_dir() else package.parent / _FOLDER


def shipped_configs(kinds: tuple[str, ...]) -> Mapping[str, Path]:
    """Return the files of some kinds by name: of ``("ablation",)``, ``operators`` and so on.

    Args:
        kinds: folders in ``configs/``. A name that several of them have is that of the first.
    """
    root = shipped_folder()
    files: dict[str, Path] = {}
    for kind in kinds:
        for file in sorted((root / kind).glob("*.yaml")):
            files.setdefault(file.stem, file)
    return files


def config_file(word: str, kinds: tuple[str, ...], *, expected: str = "a YAML file") -> Path:
    """Return the file that a word names: one on the disk, or else one that ships.

    A file that ships is named by its stem, as ``digits``, or by its path from a checkout, as
    ``configs/search/digits.yaml``. A name of a YAML file that is nowhere is returned as it is.

    Args:
        word: as typed.
        kinds: folders in ``configs/`` where a stem is looked up, in this order; without any, the
            word is a file on the disk.
        expected: what else the word may be, for the message.

    Raises:
        ConfigError: the word is neither a file nor the name of one that ships.

    Examples:
        >>> config_file("operators", ("ablation",)).name
        'operators.yaml'
        >>> config_file("mine.yaml", ("ablation",)).name
        'mine.yaml'
    """
    path = Path(word)
    if path.exists() or not kinds:
        return path
    if path.suffix not in _SUFFIXES:
        files = shipped_configs(kinds)
        if word not in files:
            names = ", ".join(files)
            raise ConfigError(
                f"{word}: expected {expected} or one that ships ({names}), got nothing there"
            )
        return files[word]
    inside = path.parts[1:] if path.parts[:1] == (_FOLDER,) else ()
    shipped = shipped_folder().joinpath(*inside)
    # Nothing outside of the folder: a name with ".." is a path of the user's.
    is_inside = bool(inside) and ".." not in inside and shipped.is_file()
    return shipped if is_inside else path


def first_sentence(file: Path) -> str:
    """Return the first sentence of the comment that a file begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    sentence = re.split(r"(?<=[.?]) ", text, maxsplit=1)[0].rstrip(".:")
    return textwrap.shorten(sentence, _LONGEST_SENTENCE, placeholder=" ...")
