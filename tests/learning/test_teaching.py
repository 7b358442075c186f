"""The champion as a teacher, the terms that hold a network to it, and the tuning modes."""

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, softmax

from continual.domain.errors import LearningError, StreamError
from continual.domain.samples import IGNORED, Split
from continual.learning import STRATEGIES, UpdateRequest
from continual.learning.strategies.distillation import Distillation, ScoreMatching, belief, divergence
from continual.learning.streams import balanced_draws
from continual.learning.teacher import Teacher, ask_teacher

SCORES = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
SAID = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(2))
TARGETS = torch.randint(3, (6, 4, 5), generator=torch.Generator().manual_seed(3))


def _teacher(said, fresh):
    return Teacher(said, torch.arange(len(said)), fresh)


def test_the_teacher_is_asked_once_per_image_and_view_and_says_the_champions_mean_over_an_images_views(toy, champion):
    network = champion.network()
    fresh = balanced_draws(toy.samples["south", Split.TRAIN][:4], network.classes, 40, views=2, seed=1)
    replayed = balanced_draws(champion.memory[:3], network.classes, 40, views=2, seed=2)
    seen = []
    network.head.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    teacher = ask_teacher(network, toy.cache, (fresh, replayed), classes=2)
    views = {(draw.digest, draw.view) for draw in (*fresh, *replayed)}
    assert sum(seen) == len(views) < 20
    assert len(teacher.scores) == len({digest for digest, _ in views}) < len(views)
    for number, draw in ((0, fresh[0]), (39, fresh[39]), (40, replayed[0]), (79, replayed[39])):
        drawn = [view for digest, view in views if digest == draw.digest]
        tokens = torch.stack([torch.from_numpy(toy.cache.tokens(draw.digest, view)).float() for view in drawn])
        with torch.no_grad():
            expected = network(tokens).mean(dim=0, keepdim=True)
        assert torch.allclose(teacher.said(torch.tensor([number])), expected, atol=1e-5)
        assert bool(teacher.replayed(torch.tensor([number]))) == (number >= 40)
    assert not teacher.scores.requires_grad


@pytest.mark.parametrize(("views", "tokens"), [(2, {1 + 8}), (1, {1 + 16})])
def test_of_several_views_a_part_of_the_patches_is_looked_at_and_of_one_view_all(toy, champion, views, tokens):
    network = champion.network()
    fresh = balanced_draws(toy.samples["south", Split.TRAIN], network.classes, 40, views=views, seed=1)
    seen = set()
    network.register_forward_pre_hook(lambda _module, inputs: seen.add(inputs[0].shape[1]))
    ask_teacher(network, toy.cache, (fresh, ()), classes=2, share=0.5)
    assert seen == tokens


def test_questions_that_do_not_fit_are_asked_in_halves_with_the_same_answers(toy, champion):
    network = champion.network()
    fresh = balanced_draws(toy.samples["south", Split.TRAIN], network.classes, 60, views=2, seed=1)
    whole = ask_teacher(network, toy.cache, (fresh, ()), classes=2)
    asked = []

    def refuse(_module, inputs):
        asked.append(len(inputs[0]))
        if len(inputs[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network.register_forward_pre_hook(refuse)
    halved = ask_teacher(network, toy.cache, (fresh, ()), classes=2)
    assert asked[:4] == [32, 16, 8, 4]
    assert max(asked[4:]) == 4
    assert torch.equal(halved.rows, whole.rows)
    assert torch.allclose(halved.scores, whole.scores, atol=1e-5)


def test_a_champion_that_cannot_be_asked_about_one_image_is_an_error_with_the_remedy(toy, champion):
    network = champion.network()
    fresh = balanced_draws(toy.samples["south", Split.TRAIN], network.classes, 4, views=1, seed=1)

    def refuse(_module, _inputs):
        raise RuntimeError("CUDA error: out of memory")

    network.register_forward_pre_hook(refuse)
    with pytest.raises(
        LearningError, match="one image of 17 tokens does not fit.*champion is asked about it alone.*image-size"
    ):
        ask_teacher(network, toy.cache, (fresh, ()), classes=2)


def test_the_divergence_is_torchs_own_at_temperature_two_and_nothing_from_itself():
    expected = kl_div(log_softmax(SCORES / 2, 1), softmax(SAID / 2, 1), reduction="none").sum(1) * 4
    assert divergence(SCORES, SAID).shape == (6, 4, 5)
    assert torch.allclose(divergence(SCORES, SAID), expected, atol=1e-5)
    assert torch.allclose(divergence(SAID, SAID), torch.zeros(6, 4, 5), atol=1e-6)


def test_a_new_draw_counts_as_much_as_the_champion_believed_its_label_and_a_new_class_in_full():
    said = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    surely = softmax(said[0], 0)
    assert torch.allclose(belief(said, torch.tensor([0, 1, 2])), torch.tensor([surely[0], surely[1], 1.0]))


@pytest.mark.parametrize("fresh", [6, 2, 0])
def test_distillation_of_dense_scores_is_the_mean_over_images_and_positions(fresh):
    term = Distillation(_teacher(SAID, fresh), strength=0.5).penalty(SCORES, TARGETS, torch.arange(6))
    total = 0.0
    for image in range(6):
        for row in range(4):
            for column in range(5):
                found, said = SCORES[image, :, row, column], SAID[image, :, row, column]
                weight = softmax(said, 0)[TARGETS[image, row, column]] if image < fresh else 1.0
                total += float(weight * divergence(found[None], said[None])[0])
    assert term.item() == pytest.approx(0.5 * total / 120, rel=1e-4)


def test_score_matching_of_dense_scores_counts_replayed_draws_only():
    term = ScoreMatching(_teacher(SAID, 2), strength=0.5).penalty(SCORES, TARGETS, torch.arange(6))
    assert term.item() == pytest.approx(0.5 * (SCORES[2:] - SAID[2:]).square().mean().item(), rel=1e-5)
    assert ScoreMatching(_teacher(SAID, 6), strength=0.5).penalty(SCORES, TARGETS, torch.arange(6)).item() == 0


@pytest.mark.parametrize("term", [Distillation, ScoreMatching])
def test_positions_outside_the_field_of_view_do_not_count(term):
    targets = TARGETS.clone()
    targets[:, :2] = IGNORED
    teacher, wild = _teacher(SAID, 3), SCORES.clone()
    wild[:, :, :2] += 50.0
    penalty = term(teacher, 0.5).penalty
    inside = penalty(SCORES, targets, torch.arange(6))
    assert inside.item() > 0
    assert torch.equal(inside, penalty(wild, targets, torch.arange(6)))
    assert penalty(SCORES, torch.full_like(TARGETS, IGNORED), torch.arange(6)).item() == 0


def test_classes_that_the_champion_never_knew_are_left_out_of_every_term():
    wide = torch.cat([SAID, torch.full((6, 2, 4, 5), 9.0)], dim=1)
    targets = torch.full_like(TARGETS, 4)
    teacher, numbers = _teacher(SAID, 3), torch.arange(6)
    assert Distillation(teacher, 1.0).penalty(wide, targets, numbers).item() == pytest.approx(0, abs=1e-6)
    assert ScoreMatching(teacher, 1.0).penalty(wide, targets, numbers).item() == 0


def test_a_champion_of_other_classes_than_the_networks_first_ones_is_an_error(toy, champion):
    request = UpdateRequest("lwf", toy.samples["south", Split.TRAIN], taught=("bright", "dim"))
    with pytest.raises(StreamError, match=r"was taught \['bright', 'dim'\], the network begins with \['dim', 'bright'"):
        toy.learn(champion.network(), request, steps=2)


def _moved(toy, champion, name, steps):
    """Depths of which some weight moved: 0 the head, 1 the last block, 2 the one before; and how far, at most."""
    before = champion.network().trainable()
    after = toy.learn(champion.network(), champion.request(name), steps=steps).trainable()
    distance = {0: 0.0, 1: 0.0, 2: 0.0}
    for key, weight in after.items():
        depth = 0 if key.startswith("head.") else {"blocks.3.": 1, "blocks.2.": 2}[key[key.index("blocks.") :][:9]]
        distance[depth] = max(distance[depth], float((weight - before[key]).detach().abs().max()))
    return distance


def test_a_linear_probe_moves_the_head_alone(toy, champion):
    moved = _moved(toy, champion, "linear_probe", steps=4)
    assert moved[0] > 0
    assert moved[1] == moved[2] == 0


@pytest.mark.parametrize("name", ["discriminative", "replay"])
def test_discriminative_rates_move_the_lower_block_less_and_replay_moves_it_as_much(toy, champion, name):
    moved = _moved(toy, champion, name, steps=20)
    share = moved[2] / moved[1]
    assert 0.2 < share < 0.6 if name == "discriminative" else 0.7 < share < 1.4


def test_gradual_unfreezing_opens_the_head_then_the_last_block_then_the_one_before():
    opening = STRATEGIES["gradual_unfreezing"].tuning.opening
    assert [opening(depth, 2) for depth in (0, 1, 2)] == [0.0, 0.25, 0.5]
    assert opening(0, 0) == 0.0


def test_gradual_unfreezing_leaves_a_block_alone_until_its_turn(toy, champion):
    awake = []
    tuning = STRATEGIES["gradual_unfreezing"].tuning
    network = champion.network()

    def note(_done):
        awake.append({"head" if "head" in key else key[key.index("blocks.") :][:8] for key in network.trainable()})

    from continual.learning import learn

    learn(network, toy.cache, champion.request("gradual_unfreezing"), toy.options, note)
    quarter = toy.options.steps // 4
    assert tuning.pace(2) == 1.0
    assert awake[: quarter - 1] == [{"head"}] * (quarter - 1)
    assert awake[quarter + 1] == {"head", "blocks.3"}
    assert awake[2 * quarter + 1] == {"head", "blocks.3", "blocks.2"}
