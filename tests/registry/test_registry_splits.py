"""The split assignment keeps its shares, label by label, at every size."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.samples import SPLIT_SHARES, Split
from registry.splits import NewSubject, assign_splits

LABELS = st.sampled_from(["", "benign", "malignant", "unclear"])
SUBJECT_LABELS = st.dictionaries(LABELS, st.integers(1, 9), min_size=1)


def _subjects(labels, prefix="s"):
    return [NewSubject(f"{prefix}{number}", {label: 1}) for number, label in enumerate(labels)]


def _filled(subjects, splits):
    counts = Counter()
    for subject in subjects:
        for label in subject.labels:
            counts[label, splits[subject.pseudonym]] += 1
    return counts


def _assert_shares_hold(counts):
    totals = Counter()
    for (label, _), count in counts.items():
        totals[label] += count
    for label, total in totals.items():
        for split, share in SPLIT_SHARES.items():
            assert abs(counts[label, split] - share * total) <= 2
        assert total < 3 or counts[label, Split.TRAIN] >= 1
        assert total < 4 or counts[label, Split.TEST] >= 1


@given(st.lists(LABELS, max_size=300))
def test_each_label_keeps_its_shares_when_subjects_have_one_image(labels):
    subjects = _subjects(labels)
    _assert_shares_hold(_filled(subjects, assign_splits(subjects, {})))


@given(st.lists(st.lists(LABELS, max_size=20), max_size=12))
def test_each_label_keeps_its_shares_over_many_small_batches(batches):
    counts = Counter()
    for number, labels in enumerate(batches):
        subjects = _subjects(labels, f"batch{number}-")
        counts += _filled(subjects, assign_splits(subjects, counts))
    _assert_shares_hold(counts)


@given(st.lists(SUBJECT_LABELS, max_size=40), st.randoms())
def test_order_of_subjects_does_not_matter(label_counts, random):
    subjects = [NewSubject(f"s{number}", labels) for number, labels in enumerate(label_counts)]
    shuffled = random.sample(subjects, len(subjects))
    assert assign_splits(subjects, {}) == assign_splits(shuffled, {})


@given(st.lists(st.tuples(SUBJECT_LABELS, st.sampled_from([None, *Split])), max_size=40))
def test_every_subject_gets_one_split_and_demands_are_kept(asked):
    subjects = [NewSubject(f"s{number}", labels, demand) for number, (labels, demand) in enumerate(asked)]
    splits = assign_splits(subjects, {})
    assert splits.keys() == {subject.pseudonym for subject in subjects}
    assert all(subject.demanded in (None, splits[subject.pseudonym]) for subject in subjects)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 70), min_size=4, max_size=80))
def test_a_patient_with_many_images_is_still_one_patient(sizes):
    subjects = [NewSubject(f"s{number}", {"benign": size}) for number, size in enumerate(sizes)]
    _assert_shares_hold(_filled(subjects, assign_splits(subjects, {})))


@given(st.permutations([45, 24, 8, 5, 3, 3]))
def test_a_few_patients_with_many_images_still_leave_every_split_near_its_share(sizes):
    subjects = [NewSubject(f"s{number}", {"monocyte": size}) for number, size in enumerate(sizes)]
    splits = assign_splits(subjects, {})
    assert [list(splits.values()).count(split) for split in Split] == [3, 1, 2]
    for split, share in SPLIT_SHARES.items():
        held = sum(size for size, subject in zip(sizes, subjects, strict=True) if splits[subject.pseudonym] is split)
        assert abs(held / sum(sizes) - share) < 0.1


def test_the_same_images_get_the_same_splits_under_another_pseudonym_key():
    once = [NewSubject(f"key-a-{number}", {"benign": 1}, mark=f"image{number}") for number in range(40)]
    again = [NewSubject(f"key-b-{number}", {"benign": 1}, mark=f"image{number}") for number in range(40)]
    assert list(assign_splits(once, {}).values()) != [Split.TRAIN] * 40
    first, second = assign_splits(once, {}), assign_splits(again, {})
    assert [first[s.pseudonym] for s in once] == [second[s.pseudonym] for s in again]


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1))])
def test_few_subjects_fill_train_then_test_then_validation(count, expected):
    subjects = _subjects(["benign"] * count)
    counts = _filled(subjects, assign_splits(subjects, {}))
    assert tuple(counts["benign", split] for split in Split) == expected


def test_what_the_site_holds_already_is_evened_out():
    stored = {("benign", Split.TRAIN): 60, ("benign", Split.VALIDATION): 15}
    splits = assign_splits(_subjects(["benign"] * 20), stored)
    assert set(splits.values()) == {Split.TEST}
