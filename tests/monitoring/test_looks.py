from dataclasses import replace

import numpy as np
import pytest

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, PerformanceEvidence, RiskEvidence, SignalFamily, Verdict
from continual.domain.errors import WindowError
from monitoring import Intake, Past, is_faulty, look, look_at_intake

CLEAN = Intake(offered=100, quarantined=0)


@pytest.fixture
def hospital(make_window, champion):
    """A site's window with all four families; `shift` moves embeddings, `maker` the scanner."""

    def make(seed, count, site="north", *, shift=0.0, maker=("acme", "bolt")):
        generator = np.random.default_rng(seed)
        rows = generator.normal(shift, size=(count, 6))
        return make_window(
            rows,
            site,
            outputs=champion(rows),
            tags=[{"maker": str(generator.choice(maker))} for _ in range(count)],
            pixels=[{"sharpness": float(v)} for v in generator.normal(size=count)],
        )

    return make


def _performance(current, *, reference=0.9, labelled=80, p_value=None):
    risk = None if p_value is None else RiskEvidence(0.5, 0.8, 0.95, p_value, 0.004, milestone=3, labelled=68)
    return PerformanceEvidence("balanced_accuracy", reference, current, labelled, risk=risk)


def test_false_alarm_rate_of_a_first_look_lies_near_its_share_of_alpha(make_window, champion, digits):
    # 200 first looks at level .05 at nothing over embeddings and outputs; 10 alarms expected at most, more than 16 have
    # probability .03; fewer than 2 would mean a test that cannot alarm.
    alarms = 0
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(len(digits))
        windows = [make_window(digits[rows], outputs=champion(digits[rows])) for rows in (order[:120], order[120:170])]
        report = look([windows[0]], windows[1], ChangePlan(alpha=0.10, permutations=99, seed=seed), CLEAN)
        assert {signal.family for signal in report.signals} == {SignalFamily.EMBEDDINGS, SignalFamily.OUTPUTS}
        alarms += report.verdict is not Verdict.NO_DRIFT
    assert 2 <= alarms <= 16


def test_false_alarm_rate_of_the_two_tables_stays_below_twice_their_share_of_alpha(make_window):
    # 60 looks: 3 alarms expected at most, more than 8 have probability .005.
    alarms = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        windows = [
            make_window(
                np.ones((count, 1)),
                tags=[{"maker": str(m)} for m in generator.choice(["x", "y", "z"], count)],
                pixels=[{"mean": float(v)} for v in generator.normal(size=count)],
            )
            for count in (80, 40)
        ]
        report = look([windows[0]], windows[1], ChangePlan(alpha=0.10, permutations=19, seed=seed), CLEAN)
        alarms += report.verdict is not Verdict.NO_DRIFT
    assert alarms <= 8


def test_digits_ten_per_cent_darker_are_called_covariate_shift(make_window, champion, digits, quick_plan):
    seen = 0
    for seed in range(15):
        order = np.random.default_rng(seed).permutation(len(digits))
        known, new = digits[order[:600]], 0.9 * digits[order[600:800]]
        report = look(
            [make_window(known, outputs=champion(known))], make_window(new, outputs=champion(new)), quick_plan, CLEAN
        )
        seen += report.verdict is Verdict.COVARIATE_SHIFT
    assert seen >= 12


def test_report_carries_all_four_families_and_what_each_could_have_seen(hospital, quick_plan):
    report = look([hospital(1, 80)], hospital(2, 40), quick_plan, Intake(offered=50, quarantined=3))
    assert list(dict.fromkeys(signal.family for signal in report.signals)) == list(SignalFamily)
    assert set(report.smallest_detectable) == {family.value for family in SignalFamily}
    assert report.verdict is Verdict.NO_DRIFT
    assert report.action is Action.NONE
    assert (report.reference_subjects, report.current_subjects, report.quarantined) == (80, 40, 3)
    for signal in report.signals:
        assert signal.score < report.smallest_detectable[signal.family.value]
        assert not signal.alarm


def test_a_new_scanner_alarms_in_its_tags_alone_and_the_reason_names_the_tag(hospital, quick_plan):
    report = look([hospital(1, 80)], hospital(2, 40, maker=("novum",)), quick_plan, CLEAN)
    assert [signal.family for signal in report.signals if signal.alarm] == [SignalFamily.ACQUISITION_TAGS]
    assert "maker" in report.reason
    assert "40 subjects differ from 80 of site north" in report.reason
    tags = report.signals[0]
    assert tags.score >= report.smallest_detectable["acquisition_tags"]


def test_same_inputs_give_the_same_report(hospital, quick_plan):
    windows = hospital(1, 60), hospital(2, 30, shift=0.2)
    first, second = (look([windows[0]], windows[1], quick_plan, CLEAN) for _ in range(2))
    assert first == second


def test_a_new_site_is_held_against_the_nearest_known_one(hospital, quick_plan):
    known = [hospital(1, 60, "far", shift=3.0), hospital(2, 60, "near", shift=0.5), hospital(3, 4, "tiny")]
    report = look(known, hospital(4, 40, "new"), quick_plan, CLEAN)
    assert (report.site, report.reference_site) == ("new", "near")
    assert report.verdict is Verdict.COVARIATE_SHIFT
    assert "site near, the nearest known site," in report.reason


def test_a_known_site_is_held_against_itself_even_when_another_is_nearer(hospital, quick_plan):
    known = [hospital(1, 60, "south"), hospital(2, 60, "north", shift=3.0)]
    assert look(known, hospital(3, 40, "north"), quick_plan, CLEAN).reference_site == "north"


def test_too_few_subjects_are_never_called_no_drift_however_many_images_they_have(hospital, quick_plan):
    current = hospital(2, 60)
    current = replace(current, subjects=tuple(f"s{i % 6}" for i in range(60)))
    report = look([hospital(1, 80)], current, quick_plan, CLEAN)
    assert (report.verdict, report.action) == (Verdict.INSUFFICIENT_DATA, Action.WAIT)
    assert "6 current subjects against 80" in report.reason
    assert "4 more current subjects" in report.reason
    assert report.signals == ()


def test_a_small_reference_is_insufficient_too(hospital, quick_plan):
    report = look([hospital(1, 7, "south")], hospital(2, 60), quick_plan, CLEAN)
    assert report.verdict is Verdict.INSUFFICIENT_DATA
    assert "3 more reference subjects" in report.reason


def test_without_any_reference_the_answer_is_insufficient_data(hospital, quick_plan):
    report = look([], hospital(1, 60), quick_plan, CLEAN)
    assert (report.verdict, report.reference_site, report.reference_subjects) == (Verdict.INSUFFICIENT_DATA, "", 0)
    assert "no reference window" in report.reason


def test_quarantine_above_the_limit_is_a_data_fault_before_anything_is_tested(hospital, quick_plan):
    report = look([hospital(1, 60)], hospital(2, 5), quick_plan, Intake(offered=10, quarantined=3))
    assert (report.verdict, report.action) == (Verdict.DATA_FAULT, Action.QUARANTINE)
    assert "3 of 10 images (30%, limit 20%)" in report.reason
    few = look([hospital(1, 60)], hospital(2, 5), quick_plan, Intake(offered=3, quarantined=1))
    assert few.verdict is Verdict.INSUFFICIENT_DATA
    at_the_limit = look([hospital(1, 60)], hospital(2, 40), quick_plan, Intake(offered=10, quarantined=2))
    assert at_the_limit.verdict is Verdict.NO_DRIFT


@pytest.fixture
def slides(make_window):
    """A site's slides with their grey levels, as they should be or with black and white exchanged."""

    def make(seed, *, inverted=(False,) * 40):
        generator = np.random.default_rng(seed)
        rows = []
        for level, turn in zip(generator.normal(200, 8, size=len(inverted)), inverted, strict=True):
            p01, p99 = (level - 150, level + 40)
            upright = {"mean": level, "p01": p01, "p50": level + 5, "p99": p99}
            turned = {"mean": 255 - level, "p01": 255 - p99, "p50": 250 - level, "p99": 255 - p01}
            rows.append(turned if turn else upright)
        return make_window(generator.normal(size=(len(inverted), 2)), pixels=rows)

    return make


def test_inverted_images_of_a_known_site_are_a_data_fault(slides, quick_plan):
    report = look([slides(1)], slides(2, inverted=(True,) * 40), quick_plan, CLEAN)
    assert (report.verdict, report.action) == (Verdict.DATA_FAULT, Action.QUARANTINE)
    assert "of 40 images (limit 20%) fit site north only with black and white exchanged" in report.reason


def test_a_fault_is_not_looked_for_again_in_images_that_a_person_has_released(slides, quick_plan):
    known, current = slides(1), slides(2, inverted=(True,) * 15 + (False,) * 25)
    assert look([known], current, quick_plan, CLEAN).verdict is Verdict.DATA_FAULT
    released = Intake(offered=40, quarantined=0, trusted=(True,) * 15 + (False,) * 25)
    assert look([known], current, quick_plan, released).verdict is not Verdict.DATA_FAULT
    others = Intake(offered=40, quarantined=0, trusted=(False,) * 15 + (True,) * 25)
    report = look([known], current, quick_plan, others)
    assert "of 15 images" in report.reason
    with pytest.raises(WindowError, match="2 samples are told trusted or not, the window has 40"):
        look([known], current, quick_plan, Intake(offered=40, quarantined=0, trusted=(True, False)))


def test_the_batch_with_the_fault_is_told_from_the_sound_ones_of_its_window(slides, quick_plan):
    known, intake = [slides(1)], Intake(offered=3, quarantined=0)
    assert is_faulty(known, slides(2, inverted=(True,) * 3), quick_plan, intake)
    assert not is_faulty(known, slides(3, inverted=(False,) * 3), quick_plan, intake)
    assert is_faulty(known, None, quick_plan, Intake(offered=10, quarantined=3))
    assert not is_faulty(known, None, quick_plan, Intake(offered=3, quarantined=2))
    assert not is_faulty(known, None, quick_plan, intake)


def test_a_single_odd_image_is_no_fault_yet_and_two_of_two_are(slides, quick_plan):
    known, intake = [slides(1)], Intake(offered=1, quarantined=0)
    assert not is_faulty(known, slides(2, inverted=(True,)), quick_plan, intake)
    assert not is_faulty(known, slides(2, inverted=(True, False, False)), quick_plan, intake)
    assert is_faulty(known, slides(2, inverted=(True, True)), quick_plan, intake)


@pytest.mark.parametrize("images", [20, 40, 100])
def test_of_many_images_the_plans_limit_decides(slides, quick_plan, images):
    for share, faulty in ((0.35, True), (0.1, False)):
        broken = round(share * images)
        current = slides(2, inverted=(True,) * broken + (False,) * (images - broken))
        assert is_faulty([slides(1)], current, quick_plan, Intake(offered=images, quarantined=0)) is faulty


def test_too_many_images_held_back_are_reported_without_an_image_that_passed(quick_plan):
    report = look_at_intake("north", quick_plan, Intake(offered=10, quarantined=10))
    assert (report.verdict, report.action, report.current_subjects) == (Verdict.DATA_FAULT, Action.QUARANTINE, 0)
    assert "10 of 10 images (100%, limit 20%)" in report.reason
    assert look_at_intake("north", quick_plan, Intake(offered=9, quarantined=9)) is None
    assert look_at_intake("north", quick_plan, Intake(offered=10, quarantined=2)) is None


@pytest.mark.parametrize(
    ("performance", "labelled", "action", "said"),
    [
        (None, 500, Action.REQUEST_LABELS, "performance is unknown"),
        (_performance(None, labelled=0), 500, Action.REQUEST_LABELS, "performance is unknown"),
        (_performance(0.8, reference=None), 500, Action.REQUEST_LABELS, "no reference value"),
        (_performance(0.86), 500, Action.LOG, "no update is needed"),
        (_performance(0.95), 500, Action.LOG, "no update is needed"),
        # One label that was met rules nothing out, unless what is estimated without labels does.
        (_performance(1.0, labelled=1), 0, Action.REQUEST_LABELS, "fewer than 40 cannot rule harm out"),
        (_performance(1.0, labelled=39), 0, Action.REQUEST_LABELS, "fewer than 40 cannot rule harm out"),
        (replace(_performance(1.0, labelled=1), estimated_low=0.95), 0, Action.LOG, "no update is needed"),
        (_performance(0.6), 40, Action.UPDATE, "update on 40 labelled"),
        (_performance(0.6), 39, Action.REQUEST_LABELS, "send 1 more labelled"),
        (_performance(0.6, p_value=0.2), 40, Action.LOG, "so few labels show such a fall by chance"),
        (_performance(0.6, p_value=0.2), 39, Action.REQUEST_LABELS, "send 1 more labelled"),
        (_performance(0.6, p_value=0.001), 40, Action.UPDATE, "update on 40 labelled"),
    ],
)
def test_a_shift_is_acted_on_by_measured_harm_and_labels_at_hand(
    make_window, quick_plan, performance, labelled, action, said
):
    generator = np.random.default_rng(0)
    known, new = (make_window(generator.normal(s, size=(40, 3)), n) for n, s in (("north", 0.0), ("south", 2.0)))
    offered = None if performance is None else replace(performance, for_training=labelled)
    report = look([known], new, quick_plan, CLEAN, offered)
    assert (report.verdict, report.action) == (Verdict.COVARIATE_SHIFT, action)
    assert said in report.reason
    assert report.performance == offered


@pytest.mark.parametrize(
    ("performance", "verdict", "action"),
    [
        (replace(_performance(0.6, p_value=0.004), for_training=40), Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE),
        # Called, and too few labels on the training side for an update to begin.
        (replace(_performance(0.6, p_value=0.004), for_training=39), Verdict.CONCEPT_SHIFT, Action.REQUEST_LABELS),
        (_performance(0.6, labelled=39, p_value=0.004), Verdict.NO_DRIFT, Action.NONE),
        (_performance(0.86, p_value=0.0001), Verdict.NO_DRIFT, Action.NONE),
        # A fall that this many labels show by chance, and one that no labelled reference can be asked about.
        (_performance(0.6, p_value=0.005), Verdict.NO_DRIFT, Action.NONE),
        (_performance(0.6), Verdict.NO_DRIFT, Action.NONE),
    ],
)
def test_harm_without_any_difference_in_images_is_concept_shift_once_labels_suffice(
    make_window, quick_plan, performance, verdict, action
):
    generator = np.random.default_rng(0)
    known, new = (make_window(generator.normal(size=(40, 3))) for _ in range(2))
    report = look([known], new, quick_plan, CLEAN, performance)
    assert (report.verdict, report.action) == (verdict, action)
    assert "0.900 on the reference" in report.reason


def test_few_permutations_in_the_plan_still_let_one_family_alarm(make_window):
    generator = np.random.default_rng(0)
    known, new = (make_window(generator.normal(s, size=(30, 3)), n) for n, s in (("north", 0.0), ("south", 3.0)))
    report = look([known], new, ChangePlan(permutations=19), CLEAN)
    assert report.verdict is Verdict.COVARIATE_SHIFT
    assert np.isfinite(report.smallest_detectable["embeddings"])


def test_a_huge_window_is_thinned_to_a_thousand_subjects_and_reported_whole(make_window, quick_plan):
    generator = np.random.default_rng(0)
    known, new = (make_window(generator.normal(size=(n, 3))) for n in (1500, 50))
    report = look([known], new, quick_plan, CLEAN)
    assert report.reference_subjects == 1500
    assert report.signals[0].detail["reference_subjects"] == 1000


def test_constant_windows_are_no_drift(make_window, quick_plan):
    windows = [make_window(np.zeros((20, 3)), tags=[{"maker": "x"}] * 20) for _ in range(2)]
    report = look([windows[0]], windows[1], quick_plan, CLEAN)
    assert report.verdict is Verdict.NO_DRIFT
    assert [signal.p_value for signal in report.signals] == [1.0]


def _watch(make_window, plan, streams):
    """The report on each successive window of a stream, the first of them the reference."""
    reference, *windows = streams
    past, reports = Past(), []
    for rows in windows:
        current = make_window(rows)
        report = look([make_window(reference)], current, plan, CLEAN, None, past)
        reports.append(report)
        said = report.over_time
        past = Past((*past.windows, current), (*past.e_values, said.e_values), said.called_at)
    return reports


def test_looks_at_a_site_where_nothing_changes_do_not_add_up_to_false_alarms(make_window, digits):
    # 40 sites of 11 looks at level .05 for all eleven: 2 alarms expected at most, more than 6 have probability .003.
    # Eleven looks that each alarm at .05 would call 17 of the 40 sites drifted.
    called = 0
    for seed in range(40):
        rows = digits[np.random.default_rng(seed).permutation(len(digits))[:300]]
        plan = ChangePlan(permutations=159, seed=seed)
        reports = _watch(make_window, plan, np.split(rows, [60, *range(80, 300, 20)]))
        called += any(report.verdict is not Verdict.NO_DRIFT for report in reports)
    assert called <= 6


def test_a_change_after_quiet_looks_is_called_by_evidence_and_dated(make_window, digits, quick_plan):
    rows = digits[np.random.default_rng(1).permutation(len(digits))[:800]]
    streams = np.split(rows, [300, *range(350, 800, 50)])
    reports = _watch(make_window, quick_plan, [*streams[:6], *(0.8 * later for later in streams[6:])])
    assert [report.verdict for report in reports[:5]] == [Verdict.NO_DRIFT] * 5
    assert reports[-1].verdict is Verdict.COVARIATE_SHIFT
    assert reports[-1].over_time.since == 6
    assert "most of it from window 6 on" in reports[-1].reason
    assert "evidence of 5 windows since the promotion is" in reports[4].reason


def test_drift_that_the_first_look_called_stands_while_the_site_stays_as_it_became(make_window, digits, quick_plan):
    rows = digits[np.random.default_rng(3).permutation(len(digits))[:800]]
    known, *later = np.split(rows, [300, 400, 500, 600, 700])
    reports = _watch(make_window, quick_plan, [known, *(0.8 * window for window in later)])
    assert [report.verdict for report in reports] == [Verdict.COVARIATE_SHIFT] * 5
    assert [report.over_time.called_at for report in reports] == [1] * 5
    assert "drift was called at window 1" in reports[-1].reason


def test_a_later_look_that_stands_out_by_itself_calls_nothing(make_window, digits):
    # One alarm in twenty is what level .05 means: after the first look it takes evidence to call drift.
    rows = digits[np.random.default_rng(1).permutation(len(digits))[:600]]
    known, before, new = np.split(rows, [300, 550])
    past = Past((make_window(before),), ({"embeddings": 0.5},))
    report = look([make_window(known)], make_window(0.85 * new), ChangePlan(permutations=159), CLEAN, None, past)
    assert any(signal.alarm for signal in report.signals)
    assert report.over_time.value < report.over_time.threshold == 40
    assert (report.verdict, report.over_time.windows) == (Verdict.NO_DRIFT, 2)
