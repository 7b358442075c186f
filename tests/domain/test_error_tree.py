"""The tree drawn at the top of the errors module is the tree of its classes."""

import inspect
import re

from continual.domain import errors


def _drawn() -> dict[str, str]:
    """Each class in the drawing and the one it hangs from."""
    line_of = {"ContinualError": ""}
    branch = ["ContinualError"]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([| ]*)(?:\|--|`--) (\w+)", line)
        if found:
            depth = len(found[1]) // 4 + 1
            line_of[found[2]] = branch[depth - 1]
            branch[depth:] = [found[2]]
    return line_of


def test_the_drawn_tree_is_the_tree_of_the_classes():
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    built = {name: "" if name == "ContinualError" else kind.__bases__[0].__name__ for name, kind in classes.items()}
    assert _drawn() == built
    assert all(len(kind.__bases__) == 1 and kind.__doc__ for kind in classes.values())
