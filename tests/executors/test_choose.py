"""The executor that a configuration names, and what is said where there is none."""

import subprocess
import sys

import pytest

from automix.configuration.task import ComputeConfig
from automix.errors import ConfigError, MissingExtraError
from automix.executors import ray_actors
from automix.executors.choose import Kind, kind_of, limits_of, room
from automix.experiments.config import CompareConfig, SearchConfig


@pytest.mark.parametrize(
    ("compute", "kind"),
    [
        (ComputeConfig(), "processes"),
        (ComputeConfig(workers=1), "in_process"),
        (ComputeConfig(workers=1, executor="processes"), "processes"),
        (ComputeConfig(workers=8, executor="in_process"), "in_process"),
        (ComputeConfig(executor="ray", address="10.0.0.1:6379"), "ray"),
    ],
)
def test_the_kind_is_the_named_one(compute: ComputeConfig, kind: Kind) -> None:
    assert kind_of(compute) == kind
    if kind != "ray":
        assert room(compute, kind) >= 1


def test_a_silent_worker_is_not_waited_for_longer_than_a_slow_one() -> None:
    assert limits_of(ComputeConfig(timeout=5)).silence == 5
    assert limits_of(ComputeConfig(timeout=5000)).silence == limits_of(ComputeConfig()).silence


def test_an_address_is_one_of_ray() -> None:
    with pytest.raises(ConfigError, match="expected executor ray with an address, got auto"):
        CompareConfig.from_mapping({"compute": {"address": "auto"}}, source="here")


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", nothing)
    monkeypatch.setenv(ray_actors._TOKEN, "a token of the test")
    with pytest.raises(MissingExtraError, match=r"got none; install it with: pip install 'automix"):
        room(ComputeConfig(executor="ray"), "ray")


def test_importing_the_package_and_its_executors_imports_no_ray() -> None:
    code = (
        "import sys, automix, automix.executors.ray_actors, automix.executors.choose;"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_runs_are_done_is_no_part_of_what_names_them() -> None:
    here = SearchConfig()
    there = ComputeConfig(executor="ray", address="auto", timeout=9, max_failures=0, gpus=0.5)
    assert here.model_copy(update={"compute": there}).content_hash() == here.content_hash()
    other = ComputeConfig(threads=2)
    assert here.model_copy(update={"compute": other}).content_hash() != here.content_hash()
