"""Which reference a window is held against; knows nothing of tests or verdicts."""

from collections.abc import Sequence

from monitoring.detectors.mmd import squared_distances
from monitoring.windows import Window


def choose_reference(references: Sequence[Window], current: Window, minimum_subjects: int, seed: int) -> Window | None:
    """The first window of the current site, else that of the NEAREST known site; None without any reference.

    Nearest is by squared MMD of embeddings, among the sites with `minimum_subjects` (the largest, if none has).
    A new site must differ from every known one to be called drift, and differing from the nearest is what that takes:
    the choice makes the test on embeddings conservative. Raises WindowError when embeddings differ in width.
    """
    own = [window for window in references if window.site == current.site]
    if own or not references:
        return own[0] if own else None
    able = [window for window in references if window.subject_count >= minimum_subjects]
    if not able:
        return max(references, key=lambda window: window.subject_count)
    distances = squared_distances(current, able, seed)
    return able[min(range(len(able)), key=lambda i: distances[i])]
