"""Pseudonyms, splits and counts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.adapters import Task
from continual.domain.samples import PSEUDONYM_CHARACTERS, SPLIT_SHARES, Sample, Split, label_counts, pseudonym

KEY = bytes(range(32))
NAMES = st.text(max_size=12)


@given(NAMES, NAMES, NAMES, NAMES)
@settings(deadline=None)
def test_two_subjects_share_a_pseudonym_only_when_site_and_name_are_equal(site, subject, other_site, other_subject):
    same = (site, subject) == (other_site, other_subject)
    assert (pseudonym(KEY, site, subject) == pseudonym(KEY, other_site, other_subject)) is same


@given(NAMES, NAMES, st.binary(min_size=32, max_size=32).filter(lambda key: key != KEY))
@settings(deadline=None)
def test_another_key_gives_another_pseudonym(site, subject, key):
    assert pseudonym(KEY, site, subject) != pseudonym(key, site, subject)


@pytest.mark.parametrize(("one", "other"), [(("ab", "c"), ("a", "bc")), (("a:1", "2"), ("a", "1:2"))])
def test_moving_a_letter_between_site_and_name_changes_the_pseudonym(one, other):
    assert pseudonym(KEY, *one) != pseudonym(KEY, *other)


@given(st.text(alphabet="ghijklmnopqrstuvwxyzÄß", min_size=3))
@settings(deadline=None)
def test_a_pseudonym_is_sixteen_hexadecimal_characters_that_hide_the_name(subject):
    name = pseudonym(KEY, "north", subject)
    assert len(name) == PSEUDONYM_CHARACTERS == 16
    assert set(name) <= set("0123456789abcdef")
    assert subject not in name


def test_pseudonyms_stay_the_same_over_releases():
    # HMAC-SHA256 of b"5:north:P1" under the key 00 01 .. 1f, by OpenSSL; a change would make every patient new.
    assert pseudonym(KEY, "north", "P1") == "9feb10c5505404a4"


def test_split_shares_cover_every_split_and_sum_to_one():
    assert set(SPLIT_SHARES) == set(Split)
    assert sum(SPLIT_SHARES.values()) == pytest.approx(1.0)


def test_label_counts_leave_unlabelled_samples_out_and_stand_in_order():
    samples = [
        Sample(str(i), "north", "s", label, Split.TRAIN, "a", 1) for i, label in enumerate(["b", None, "a", "b"])
    ]
    assert list(label_counts(samples).items()) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(("label", "mask"), [(None, None), ("a", None), (None, "b" * 64), ("a", "b" * 64)])
def test_each_task_learns_from_what_it_needs_alone(label, mask):
    sample = Sample("1", "north", "s", label, Split.TRAIN, "a", 1, mask=mask)
    assert sample.labelled_for(Task.CLASSIFICATION) is (label is not None)
    assert sample.labelled_for(Task.SEGMENTATION) is (mask is not None)
