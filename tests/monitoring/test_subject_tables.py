import numpy as np

from continual.domain.drift import SignalFamily
from monitoring.subject_tables import FEW_VALUES, MISSING, MOST_CATEGORIES, OTHER, paired_columns

TAGS, PIXELS = SignalFamily.ACQUISITION_TAGS, SignalFamily.PIXEL_STATISTICS


def _tagged(make_window, rows, subjects=None):
    return make_window(np.ones((len(rows), 1)), subjects=subjects, tags=rows)


def _only(columns):
    (column,) = columns
    return column


def test_each_subject_gives_the_median_of_its_numbers_and_its_most_frequent_string(make_window):
    subjects = ["b", "b", "b", "a", "a", "a"]
    rows = [{"kvp": v, "maker": m} for v, m in zip([1, 9, 2, 30, 31, 99], "xyxzzx", strict=True)]
    other = [{"kvp": float(v), "maker": "x"} for v in range(100, 106) for _ in range(3)]
    left = _tagged(make_window, rows, subjects)
    right = _tagged(make_window, other, [f"c{i // 3}" for i in range(18)])
    kvp, maker = paired_columns(left, right, TAGS)
    assert kvp.reference == (31.0, 2.0)  # subjects in order of name
    assert maker.reference == ("z", "x")
    assert kvp.current == (100.0, 101.0, 102.0, 103.0, 104.0, 105.0)


def test_many_images_a_subject_do_not_differ_from_single_ones_by_their_number_alone(make_window):
    generator = np.random.default_rng(5)
    single = [{"mean": float(v)} for v in generator.normal(size=400)]
    many = [{"mean": float(v)} for v in generator.normal(size=400 * 17)]
    left = make_window(np.ones((400, 1)), pixels=single)
    right = make_window(np.ones((len(many), 1)), pixels=many, subjects=[f"s{i // 17}" for i in range(len(many))])
    column = _only(paired_columns(left, right, PIXELS))
    assert 0.85 < np.std(column.current) / np.std(column.reference) < 1.15  # medians of 17 would give 0.3


def test_constant_columns_are_left_out_even_with_rounding_noise(make_window):
    left = _tagged(make_window, [{"spacing": 0.2, "maker": "x"}] * 5)
    right = _tagged(make_window, [{"spacing": 0.1 + 0.1 + 1e-16, "maker": "x"}] * 5)
    assert paired_columns(left, right, TAGS) == ()


def test_a_number_recorded_in_one_window_only_becomes_a_column_of_presence(make_window):
    left = _tagged(make_window, [{"dose": float(i)} for i in range(9)])
    right = _tagged(make_window, [{}] * 7)
    column = _only(paired_columns(left, right, TAGS))
    assert (column.name, column.numeric) == ("dose is recorded", False)
    assert column.reference == ("yes",) * 9
    assert column.current == ("no",) * 7


def test_a_number_that_some_subjects_lack_gives_its_values_and_its_presence(make_window):
    left = _tagged(make_window, [{"dose": float(i)} for i in range(9)])
    right = _tagged(make_window, [{"dose": 1.5}, {"dose": float("nan")}, {}])
    values, presence = paired_columns(left, right, TAGS)
    assert values.current == (1.5, None, None)
    assert presence.current == ("yes", "no", "no")


def test_a_missing_or_blank_string_is_a_category(make_window):
    left = _tagged(make_window, [{"maker": "x"}, {"maker": "y"}])
    right = _tagged(make_window, [{"maker": " "}, {}])
    assert _only(paired_columns(left, right, TAGS)).current == (MISSING, MISSING)


def test_few_different_numbers_are_categories_and_more_are_numbers(make_window):
    few = [{"kvp": float(i % FEW_VALUES)} for i in range(20)]
    more = [{"kvp": float(i % (FEW_VALUES + 1))} for i in range(20)]
    assert not _only(paired_columns(_tagged(make_window, few), _tagged(make_window, few), TAGS)).numeric
    assert _only(paired_columns(_tagged(make_window, few), _tagged(make_window, more), TAGS)).numeric


def test_numbers_and_strings_in_one_column_are_compared_as_strings(make_window):
    left = _tagged(make_window, [{"filter": 2.0}, {"filter": True}])
    right = _tagged(make_window, [{"filter": "2"}, {"filter": "none"}])
    column = _only(paired_columns(left, right, TAGS))
    assert column.reference == ("2", "True")
    assert column.current == ("2", "none")


def test_a_column_of_serial_numbers_is_cut_to_its_most_frequent_categories(make_window):
    left = _tagged(make_window, [{"serial": f"a{i}"} for i in range(300)])
    right = _tagged(make_window, [{"serial": f"b{i}"} for i in range(300)])
    column = _only(paired_columns(left, right, TAGS))
    assert len({*column.reference, *column.current}) == MOST_CATEGORIES + 1
    assert OTHER in column.current
