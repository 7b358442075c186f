import re

import numpy as np
import pytest

from continual.domain.errors import WindowError
from monitoring.report_html import evidently_html


def test_page_shows_both_tables_and_loads_nothing_from_elsewhere(make_window):
    generator = np.random.default_rng(0)
    windows = [
        make_window(
            np.ones((20, 1)),
            site,
            tags=[{"maker": str(m)} for m in generator.choice(["x", "y"], 20)],
            pixels=[{"maker": float(v)} for v in generator.normal(size=20)],
        )
        for site in ("north", "south")
    ]
    page = evidently_html(*windows)
    assert "tag maker" in page
    assert "pixel maker" in page
    assert "exact homogeneity p_value" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.?https?:", page)
    assert not any(subject in page for window in windows for subject in window.subjects)


def test_page_without_any_varying_column_is_refused(make_window):
    with pytest.raises(WindowError, match="0 columns"):
        evidently_html(make_window(np.ones((3, 1))), make_window(np.ones((3, 1)), "south"))
