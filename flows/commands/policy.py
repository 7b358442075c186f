"""A policy: a TOML file whose table [plan] names what a change plan would have otherwise; knows nothing of history."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from continual.domain.change_plan import ChangePlan
from continual.domain.errors import SettingsError

TABLE = "plan"
NEAREST = 3


def read_policy(path: Path) -> dict[str, Any]:
    """Fields of the change plan and the values that the policy gives them, perhaps none.

    Raises SettingsError for a file that is missing or no TOML, a name that is no field, or a value of another kind.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"policy {path}: it cannot be read ({type(error).__name__}); name a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"policy {path}: no TOML ({error}); write a table [{TABLE}] with name = value") from None
    strangers = sorted(set(told) - {TABLE})
    plan = told.get(TABLE, {})
    if strangers or not isinstance(plan, Mapping):
        named = f"has {strangers[0]!r} beside" if strangers else "gives one value for"
        raise SettingsError(f"policy {path}: it {named} the table [{TABLE}]; write all names below [{TABLE}]")
    return {name: _checked(path, name, value) for name, value in plan.items()}


def _checked(path: Path, name: str, value: object) -> object:
    """The value as the plan holds it."""
    known = {field.name: str(field.type) for field in fields(ChangePlan)}
    if name not in known:
        near = get_close_matches(name, known, NEAREST, cutoff=0.4) or sorted(known)
        raise SettingsError(f"policy {path}: a change plan has no {name!r}; the nearest are {', '.join(near)}")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = tuple(value)
    elif type(value) is int and "float" in known[name]:
        value = float(value)
    default = getattr(ChangePlan(), name)
    wanted = float if default is None else type(default)
    if type(value) is not wanted:
        raise SettingsError(f"policy {path}: {name} is {value!r}, must be of the kind of {default!r}; correct it")
    return value
