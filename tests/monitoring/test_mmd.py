import numpy as np
import pytest

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring.detectors import Effort
from monitoring.detectors.kernels import BANDWIDTH_FACTORS
from monitoring.detectors.mmd import measure, squared_distances

EMBEDDINGS = SignalFamily.EMBEDDINGS
EFFORT = Effort(permutations=199, seed=7)


def _finding(reference, current, effort=EFFORT):
    return measure(reference, current, EMBEDDINGS, effort)[0]


def test_score_is_the_unbiased_squared_mmd_between_mean_embeddings_of_subjects(make_window):
    generator = np.random.default_rng(1)
    names = {"north": ["a", "a", "b", "c", "c", "c"], "south": ["d", "e", "e", "f"]}
    windows = [make_window(generator.normal(size=(len(s), 3)), site, subjects=s) for site, s in names.items()]
    assert _finding(*windows).score == pytest.approx(_by_hand(*windows))


def _by_hand(reference, current):
    """The definition, pair by pair."""
    groups = [
        [w.embeddings[[s == name for s in w.subjects]] for name in sorted(set(w.subjects))]
        for w in (reference, current)
    ]
    rows = np.vstack([reference.embeddings, current.embeddings])
    between = [np.sum((a - b) ** 2) for i, a in enumerate(rows) for b in rows[:i]]
    scale = np.median(between)

    def similarity(first, second):
        return np.mean(
            [np.exp(-np.sum((a - b) ** 2) / (f * scale)) for a in first for b in second for f in BANDWIDTH_FACTORS]
        )

    left, right = groups
    inner = [np.mean([similarity(a, b) for a in g for b in g if a is not b]) for g in groups]
    return inner[0] + inner[1] - 2 * np.mean([similarity(a, b) for a in left for b in right])


def test_order_of_rows_changes_nothing(make_window):
    generator = np.random.default_rng(2)
    rows, subjects = generator.normal(size=(60, 4)), [f"s{i // 3}" for i in range(60)]
    current = make_window(generator.normal(0.3, size=(30, 4)), "south")
    order = generator.permutation(60)
    shuffled = make_window(rows[order], subjects=[subjects[i] for i in order])
    plain, mixed = _finding(make_window(rows, subjects=subjects), current), _finding(shuffled, current)
    assert mixed.score == pytest.approx(plain.score)
    assert mixed.p_value == plain.p_value


def test_false_alarm_rate_holds_with_ten_moving_together_images_a_subject_where_permuting_images_fails(make_window):
    # 200 looks at nothing. At 5 % more than 19 alarms have probability .004; permuting images must exceed 100.
    by_subject = by_image = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        windows = []
        for site, count in (("north", 30), ("south", 15)):
            rows = np.repeat(generator.normal(size=(count, 8)), 10, axis=0) + 0.3 * generator.normal(
                size=(count * 10, 8)
            )
            windows.append((rows, site, [f"s{i // 10}" for i in range(count * 10)]))
        effort = Effort(permutations=99, seed=seed)
        by_subject += _finding(*(make_window(r, site, subjects=s) for r, site, s in windows), effort).p_value <= 0.05
        by_image += _finding(*(make_window(r, site) for r, site, _ in windows), effort).p_value <= 0.05
    assert 2 <= by_subject <= 19
    assert by_image > 100


@pytest.mark.parametrize(("known", "new"), [((150, 1), (20, 12)), ((20, 12), (150, 1))])
def test_false_alarm_rate_holds_between_single_image_and_many_image_subjects(make_window, known, new):
    alarms = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        windows = []
        for site, (count, images) in (("north", known), ("south", new)):
            rows = np.repeat(generator.normal(size=(count, 8)), images, axis=0) + generator.normal(
                size=(count * images, 8)
            )
            windows.append(make_window(rows, site, subjects=[f"s{i // images}" for i in range(count * images)]))
        alarms += _finding(*windows, Effort(permutations=99, seed=seed)).p_value <= 0.05
    assert alarms <= 11  # 5 expected; 12 or more have probability .004


def test_darker_digits_are_seen_in_a_window_of_two_hundred(make_window, digits):
    seen = 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(digits))
        reference = make_window(digits[order[:600]])
        seen += _finding(reference, make_window(0.9 * digits[order[600:800]], "south")).p_value <= 0.05 / 4
    assert seen >= 16


@pytest.mark.parametrize("level", [0.01, 0.0125, 0.05, 0.2])
def test_scores_alarm_exactly_from_the_smallest_alarming_score_on(make_window, level):
    below = above = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        shift = 0.5 * (seed % 3)
        finding = _finding(
            make_window(generator.normal(size=(25, 3))), make_window(generator.normal(shift, size=(15, 3)), "south")
        )
        alarms = finding.score >= finding.smallest_alarming(level)
        assert alarms == (finding.p_value <= level)
        above, below = above + alarms, below + (not alarms)
    assert above
    assert below


def test_too_few_permutations_for_a_level_give_an_infinite_smallest_score(make_window):
    window = make_window(np.random.default_rng(0).normal(size=(20, 2)))
    assert _finding(window, window, Effort(permutations=19, seed=1)).smallest_alarming(0.01) == float("inf")


def test_random_features_see_in_large_windows_what_the_exact_kernel_sees(make_window):
    generator = np.random.default_rng(4)
    subjects = [f"s{i // 4}" for i in range(1200)]
    large = [make_window(generator.normal(s, size=(1200, 5)), n, subjects=subjects) for n, s in (("a", 0), ("b", 0.5))]
    small = [make_window(w.embeddings[:800], w.site, subjects=subjects[:800]) for w in large]
    approximate, exact = _finding(*large), _finding(*small)
    assert approximate.score == pytest.approx(exact.score, rel=0.25)
    assert approximate.p_value == exact.p_value == 1 / 200
    assert _finding(large[0], make_window(generator.normal(size=(1200, 5)), "c", subjects=subjects)).p_value > 0.01


def test_distances_to_several_sites_rank_them_like_their_shift(make_window):
    generator = np.random.default_rng(6)
    sites = [make_window(generator.normal(s, size=(80, 6)), str(s)) for s in (1.0, 0.2, 3.0)]
    distances = squared_distances(make_window(generator.normal(size=(50, 6)), "new"), sites, seed=1)
    assert np.argsort(distances).tolist() == [1, 0, 2]


def test_outputs_that_a_window_lacks_give_no_finding(make_window):
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    assert measure(make_window(rows, outputs=rows), make_window(rows), SignalFamily.OUTPUTS, EFFORT) == ()


def test_windows_of_two_backbones_cannot_be_compared(make_window):
    narrow, wide = make_window(np.ones((10, 3))), make_window(np.ones((10, 4)), "south")
    with pytest.raises(WindowError, match="4 columns, those of north 3"):
        _finding(narrow, wide)
    with pytest.raises(WindowError, match="one backbone"):
        squared_distances(wide, [narrow], seed=1)
