"""The room's public names, and that asking for none costs nothing."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from continual import learning

ROOT = Path(__file__).parents[2]


def test_the_listed_names_are_those_that_have_a_home():
    assert len(learning.__all__) == len(set(learning.__all__))
    assert set(learning.__all__) == set(learning._HOMES)


def test_type_checkers_are_shown_the_same_names():
    tree = ast.parse(inspect.getsource(learning))
    shown = {
        alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert shown == set(learning.__all__)


@pytest.mark.parametrize("name", learning.__all__)
def test_each_name_loads_from_its_home(name):
    loaded = getattr(learning, name)
    assert loaded is getattr(sys.modules[f"continual.learning.{learning._HOMES[name]}"], name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'surprise'"):
        learning.surprise  # noqa: B018


def test_importing_the_room_loads_no_heavy_library():
    script = "import sys, continual.learning; print(sorted({'torch', 'timm', 'peft', 'avalanche'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
