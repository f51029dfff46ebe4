"""Clients without their library say which extra to install."""

import importlib
import subprocess
import sys

import pytest

from automix.errors import MissingExtraError


@pytest.mark.parametrize("name", ["transformers", "fastai"])
def test_the_error_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"automix.integrations.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    for loaded in [*sys.modules]:
        if loaded.partition(".")[0] == name:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"expected the extra {name} \(pip install"):
        importlib.import_module(module)


def test_the_package_loads_no_library_of_a_client() -> None:
    names = "timm", "transformers", "accelerate", "lightning", "fastai", "kornia", "torchvision"
    program = (
        "import sys, automix.integrations, automix.integrations.timm\n"
        f"sys.exit(str([name for name in {names} if name in sys.modules] or ''))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stderr.strip() == ""
