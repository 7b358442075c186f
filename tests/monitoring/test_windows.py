from dataclasses import replace

import numpy as np
import pytest

from continual.domain.errors import WindowError
from monitoring import Intake, Window
from monitoring.windows import draw_subjects


def test_window_without_samples_is_refused_with_a_remedy():
    with pytest.raises(WindowError, match=r"site north holds 0 samples.*wait"):
        Window("north", (), np.empty((0, 3)), None, (), ())


@pytest.mark.parametrize("member", ["embeddings", "outputs"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_without_naming_a_subject(make_window, member, value):
    rows = np.ones((4, 3))
    rows[2, 1] = value
    with pytest.raises(WindowError, match=f"{member}: 1 of 4 rows are not finite") as caught:
        replace(make_window(np.ones((4, 3))), **{member: rows})
    assert "north-2" not in str(caught.value)


def test_pixel_statistics_that_are_not_finite_are_refused(make_window):
    with pytest.raises(WindowError, match="sharpness is nan"):
        make_window(np.ones((2, 3)), pixels=[{"sharpness": 1.0}, {"sharpness": float("nan")}])


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("embeddings", np.ones((3, 2))),
        ("embeddings", np.ones(4)),
        ("embeddings", np.ones((4, 0))),
        ("outputs", np.ones((5, 2))),
        ("tags", ({},) * 3),
        ("pixel_statistics", ({},) * 5),
    ],
)
def test_members_of_another_length_than_the_subjects_are_refused(make_window, member, value):
    with pytest.raises(WindowError, match=member):
        replace(make_window(np.ones((4, 2))), **{member: value})


def test_intake_cannot_hold_back_more_than_was_offered():
    with pytest.raises(WindowError, match="3 quarantined of 2 offered"):
        Intake(offered=2, quarantined=3)
    assert Intake(offered=0, quarantined=0).quarantined_share == 0.0


def test_drawing_subjects_keeps_all_images_of_those_drawn(make_window):
    subjects = [f"s{i % 50}" for i in range(150)]
    drawn = draw_subjects(make_window(np.arange(150.0)[:, None], subjects=subjects), 20, seed=1)
    assert drawn.subject_count == 20
    assert len(drawn.subjects) == 60
    assert all(subjects[int(row[0])] == subject for row, subject in zip(drawn.embeddings, drawn.subjects, strict=True))


def test_drawing_subjects_leaves_a_small_window_alone(make_window):
    window = make_window(np.ones((4, 2)))
    assert draw_subjects(window, 4, seed=1) is window
