"""Box prompts: rectangles that say where in an image to look; knows nothing of networks or of how one is asked."""

import math
from dataclasses import dataclass

from continual.domain.errors import PromptError

ANY_CLASS = ""
"""In a class's place: the box asks for every class that has none of its own."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle between pixel edges: `left` and `top` 0 are an image's own, `right` and `bottom` its width and
    height. In pixels, fractions allowed.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(edge) for edge in (self.left, self.top, self.right, self.bottom)):
            raise PromptError("a box has an edge that is no finite number; send x0,y0,x1,y1 in pixels")
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            raise PromptError(
                f"the box {self.words()} must have 0 <= x0 < x1 and 0 <= y0 < y1; send left, top, right, bottom"
            )

    def words(self) -> str:
        """The edges as they are sent: x0,y0,x1,y1."""
        return f"{self.left:g},{self.top:g},{self.right:g},{self.bottom:g}"

    def check_inside(self, height: int, width: int) -> None:
        """Raise PromptError when the box reaches beyond an image of this size."""
        if self.right > width or self.bottom > height:
            raise PromptError(
                f"the box {self.words()} reaches beyond the image of {width} x {height} pixels (width x height); send "
                "edges in the pixels of the image that was sent"
            )


def whole_image(height: int, width: int) -> Box:
    """The box that says nothing: all of the image."""
    return Box(0, 0, width, height)
