"""No source of ours runs code from files, draws from global generators or names a device."""

from pathlib import Path

import pytest

from tests.source_rules import ROOT, sources, violations


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_keeps_the_rules(path: Path) -> None:
    source = path.read_text(encoding="ascii")
    is_command_line = path.is_relative_to(ROOT / "automix/cli")
    where = path.relative_to(ROOT).as_posix()
    assert violations(source, where=where, may_print=is_command_line) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(stream)",
        "import pickle as p\np.loads(text)",
        "from pickle import loads as read\nread(text)",
        "from pickle import Unpickler\nUnpickler(stream)",
        "import cloudpickle\ncloudpickle.loads(text)",
        "eval(text)",
        "exec(text)",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch\ntorch.hub.load(name)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from stable_baselines3 import PPO\nPPO.load(path)",
        "import torch\ntorch.zeros(1, device='cuda')",
        "import torch\ntorch.zeros(1, device='cuda:0')",
        "images.cuda()",
        "print(1)",
        "import torch\ntorch.manual_seed(0)",
        "import numpy as np\nnp.random.seed(0)",
        "import numpy as np\nnp.random.rand(3)",
        "import socket\nsocket.create_connection(address)",
        "from socket import socket as connect\nconnect()",
        "import subprocess\nsubprocess.run(words)",
        "from subprocess import Popen\nPopen(words)",
        "import os\nos.execv(path, words)",
        "import urllib.request\nurllib.request.urlopen(url)",
        "from multiprocessing.connection import Listener\nListener()",
        "import torch.distributed as dist\ndist.broadcast_object_list(values, src=0)",
        "import torch.distributed as dist\ndist.all_gather_object(values, value)",
        "from torch.distributed import gather_object as gather\ngather(value)",
        "import torch\ntorch.distributed.scatter_object_list(values, given)",
        "import torch.distributed as dist\ndist.init_process_group('gloo')",
        "import html\nhtml.escape(text)",
        "from html import escape\nescape(text)",
        "from markupsafe import escape as safe\nsafe(text)",
        "from markupsafe import Markup\nMarkup(text)",
        "import csv\ncsv.writer(stream)",
        "import sys\nsys.stderr.write(text)",
        "import unicodedata\nunicodedata.category(letter)",
        "import random\nrandom.shuffle(names)",
        "from random import choice\nchoice(names)",
    ],
)
def test_the_rules_find_what_they_are_for(source: str) -> None:
    assert len(violations(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('x')",
        "import torch\ntorch.load(path, weights_only=True)",
        "import safetensors.torch\nsafetensors.torch.load(content)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import numpy as np\nnp.random.default_rng(0)",
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
        "'''Runs on cuda.'''\n",
        "Schedule.load(path)",
        "def add(random): random.normal(3)",
    ],
)
def test_the_rules_leave_the_rest_alone(source: str) -> None:
    assert violations(source) == []


def test_there_are_sources() -> None:
    assert len(sources()) > 100
