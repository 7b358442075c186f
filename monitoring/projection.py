"""A map of embeddings: two principal components of several windows together; knows nothing of drawing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from continual.domain.drift_views import ProjectedGroup, Projection, Side
from monitoring.windows import Window, pool

MOST_POINTS = 250
"""Images of a group that are drawn, and that the directions are found from: groups weigh about the same."""
_DIGITS = 4

Rows = Float[np.ndarray, "image feature"]


def project(references: Sequence[Window], earlier: Sequence[Window], current: Window, seed: int) -> Projection:
    """The map of all references, of the windows since the promotion as one, and of the current one.

    Points carry no digest and no pseudonym. Deterministic under the seed, up to the last digits of the linear algebra.
    """
    known = [(Side.REFERENCE if window.site == current.site else Side.KNOWN_SITE, window) for window in references]
    before = [(Side.EARLIER, pool(earlier))] if earlier else []
    groups = [*known, *before, (Side.CURRENT, current)]
    drawn = [_some(window.embeddings, seed) for _, window in groups]
    middle, directions, explained = _directions(np.vstack(drawn))
    return Projection(
        groups=tuple(
            ProjectedGroup(
                site=window.site,
                side=side,
                images=len(window.subjects),
                centre=_rounded((window.embeddings.mean(axis=0, dtype=float) - middle) @ directions),
                points=tuple(_rounded(point) for point in (rows - middle) @ directions),
            )
            for (side, window), rows in zip(groups, drawn, strict=True)
        ),
        explained=explained,
    )


def _directions(
    rows: Rows,
) -> tuple[Float[np.ndarray, "feature"], Float[np.ndarray, "feature 2"], tuple[float, float]]:
    middle = rows.mean(axis=0, dtype=float)
    _, spread, directions = np.linalg.svd(rows - middle, full_matrices=False)
    # Fewer than two directions, of one image or one feature, leave the others at 0.
    both = np.zeros((rows.shape[1], 2))
    both[:, : min(2, len(directions))] = directions[:2].T
    # A direction has no sign of its own: its largest part is made positive.
    signs = np.sign(both[np.abs(both).argmax(axis=0), [0, 1]])
    share = np.zeros(2)
    share[: min(2, len(spread))] = (spread**2 / max(float((spread**2).sum()), 1e-300))[:2]
    return (
        middle,
        both * np.where(signs == 0, 1, signs),
        (round(float(share[0]), _DIGITS), round(float(share[1]), _DIGITS)),
    )


def _some(rows: Rows, seed: int) -> Rows:
    if len(rows) <= MOST_POINTS:
        return rows.astype(float)
    return rows[np.random.default_rng(seed).choice(len(rows), MOST_POINTS, replace=False)].astype(float)


def _rounded(point: Float[np.ndarray, "2"]) -> tuple[float, float]:
    x, y = (float(f"{value:.{_DIGITS}g}") for value in point)
    return x, y
