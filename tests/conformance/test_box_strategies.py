"""What every strategy promises of a network that is asked with boxes: the real LiteMedSAM, on squares of 64 pixels.

The same weights fit a smaller square, where a step costs a sixteenth. The stream: a slanting stripe at north, on every
second image with a spot; at south the colours stand the other way round.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load

from continual.domain.boxes import Box
from continual.domain.errors import AdapterMismatchError, LearningError, PromptError, StreamError
from continual.domain.metrics import chance_dice, dice
from continual.domain.samples import IGNORED, Sample, Split
from continual.learning import (
    PEFT_METHODS,
    STRATEGIES,
    WHOLE_BACKBONE,
    ActivationKey,
    BackboneWeights,
    BoxNetwork,
    BoxPredictor,
    Importance,
    LoraShape,
    TileCache,
    TileGrid,
    TrainingOptions,
    UpdateRequest,
    build_backbone,
    calibrate,
    check_image_size,
    check_tile,
    first_tuned_block,
    importance_of,
    learn,
    load_predictor,
    mask_network,
    network_record,
    probabilities,
    read_adapter,
    resolve_backbone,
    site_outcomes,
    usual_alpha,
    write_adapter,
)
from continual.learning.litemedsam import as_backbone
from continual.learning.segmentation.boxes import boxes_of, loosened
from continual.learning.segmentation.draws import box_draws
from continual.learning.segmentation.framing import Framing
from continual.learning.strategies import StrategyContext

NAMES = list(STRATEGIES)
REGULARISING = [name for name, strategy in STRATEGIES.items() if strategy.regularises]
SIDE_PX = 64
CLASSES = ("stripe", "spot")
COLOURS = {"north": ((90, 90, 90), (170, 60, 60)), "south": ((170, 60, 60), (90, 90, 90))}
CPU = torch.device("cpu")


def _draw(site, number, random):
    """A stripe, and on every second image a bright spot; wider than high, with a frame that is nobody's."""
    height, width = 48, SIDE_PX
    ground, stripe = (np.array(colour, dtype=float) for colour in COLOURS[site])
    rows, columns = np.mgrid[:height, :width]
    middle = random.integers(8, 20) + columns * 0.4
    mask = ((abs(rows - middle) < 6) & (columns > 6)).astype(np.uint8)
    if number % 2:
        mask[(rows - 28) ** 2 + (columns - 40) ** 2 < 40] = 2
    pixels = np.where(mask[..., None] == 1, stripe, np.where(mask[..., None] == 2, 235.0, ground))
    pixels = np.clip(pixels + random.normal(scale=6, size=(height, width, 3)), 0, 255).astype(np.uint8)
    mask[:2] = IGNORED
    return pixels, mask


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """LiteMedSAM for small squares, two sites' images with masks, a filled cache and a version that learnt north."""

    weights: BackboneWeights
    shape: LoraShape
    cache: TileCache
    images: dict[str, np.ndarray]
    samples: dict[tuple[str, Split], list[Sample]]
    options: TrainingOptions

    def fresh(self, shape=None) -> BoxNetwork:
        network = mask_network(build_backbone(self.weights), shape or self.shape, CLASSES, self.cache.grid)
        assert isinstance(network, BoxNetwork)
        return network

    def learn(self, network, request, **changed):
        learn(network, self.cache, request, replace(self.options, **changed), lambda _n: None)
        return network

    def score(self, network, site):
        return site_outcomes(network, self.cache, site, self.samples[site, Split.TEST], lambda _n: None)

    def record(self, network):
        scores = {"north": asdict(self.score(network, "north")[1])}
        return {"network": network_record(network, self.weights, SIDE_PX), "scores": scores, "adapter": "stripes"}


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    bench: Bench
    files: dict[str, bytes]
    importance: Importance

    def network(self) -> BoxNetwork:
        network = read_adapter(self.bench.weights, self.files, CPU)
        assert isinstance(network, BoxNetwork)
        return network

    def request(self, name):
        north, south = (self.bench.samples[site, Split.TRAIN] for site in ("north", "south"))
        return UpdateRequest(name, south, north[:2], north, self.importance, CLASSES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    torch.set_num_threads(1)
    weights = as_backbone(load(resolve_backbone("litemedsam").data), SIDE_PX)
    shape = LoraShape(rank=4, alpha=8, blocks=1)
    images, masks, samples, random = {}, {}, {}, np.random.default_rng(5)
    for site in COLOURS:
        for split, count in ((Split.TRAIN, 4), (Split.TEST, 2)):
            group = samples[site, split] = []
            for number in range(count):
                pixels, mask = _draw(site, number, random)
                digest, address = (hashlib.sha256(values.tobytes()).hexdigest() for values in (pixels, mask))
                images[digest], masks[address] = pixels, mask
                group.append(Sample(digest, site, f"{site}-{split}-{number}", None, split, digest, 1, mask=address))
    network = build_backbone(weights)
    key = ActivationKey(weights.digest, first_tuned_block(network, shape), SIDE_PX)
    cache = TileCache(tmp_path_factory.mktemp("boxed"), key, SIDE_PX, network, CPU, lambda s: masks[str(s.mask)])
    cache.fill([s for group in samples.values() for s in group], 1, lambda s: images[s.digest], lambda _n: None)
    options = TrainingOptions(steps=3, batch_size=4, lora_rate=2e-3, head_rate=2e-3, views=1, seed=1)
    return Bench(weights, shape, cache, images, samples, options)


@pytest.fixture(scope="module")
def champion(bench):
    north = bench.samples["north", Split.TRAIN]
    network = bench.learn(bench.fresh(), UpdateRequest("naive", north), steps=6)
    importance = importance_of(network, bench.cache, north[:2], lambda _n: None)
    return Champion(bench, write_adapter(network, importance, bench.record(network)), importance)


@pytest.fixture(scope="module")
def update_of(bench, champion):
    """Updates by strategy, each made once."""
    made = {}

    def update(name):
        if name not in made:
            made[name] = bench.learn(champion.network(), champion.request(name))
        return made[name]

    return update


def test_an_untrained_network_says_what_litemedsam_itself_says(bench):
    network, own = bench.fresh(), build_backbone(bench.weights)
    image = torch.rand(1, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    box = [6.0, 9.0, 50.0, 40.0]
    with torch.no_grad():
        found = network(network.prefix(image), torch.tensor([[*box, 1.0]]))
        sparse, dense = own.prompt_encoder(points=None, boxes=torch.tensor([[box]]), masks=None)
        places = own.prompt_encoder.get_dense_pe()
        embedding = own.image_encoder.neck(
            own.prefix(image, 10).transpose(1, 2).reshape(1, -1, SIDE_PX // 4, SIDE_PX // 4)
        )
        wanted, _ = own.mask_decoder(embedding, places, sparse, dense, multimask_output=False)
    assert wanted.abs().max() > 1
    assert torch.allclose(found[:, 1], wanted[:, 0], atol=1e-3)
    assert found[:, 0].abs().max() == 0


def test_six_steps_find_more_of_a_site_than_litemedsam_does(bench, champion):
    _, before = bench.score(bench.fresh(), "north")
    outcomes, after = bench.score(champion.network(), "north")
    assert after.dice > max(before.dice, outcomes.chance)


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_from_the_champion_and_freezes_what_is_frozen(champion, update_of, name):
    start, network = champion.network(), update_of(name)
    before, after = ({**dict(some.named_parameters()), **dict(some.named_buffers())} for some in (start, network))
    assert set(before) == set(after)
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    assert moved
    assert moved <= set(network.trainable())
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(part.training for part in norms)


@pytest.mark.parametrize("name", ["naive", "replay_ewc", "replay_lwf"])
def test_a_strategy_is_bit_for_bit_deterministic_under_its_seed(bench, champion, update_of, name):
    torch.manual_seed(99)  # What the caller drew before must not matter.
    again = bench.learn(champion.network(), champion.request(name)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in update_of(name).state_dict().items())


def test_strategies_differ_from_naive(update_of):
    naive = update_of("naive").head.state_dict()
    for name in set(NAMES) - {"naive"}:
        assert any(not torch.equal(value, naive[key]) for key, value in update_of(name).head.state_dict().items()), name


def test_a_version_survives_being_written_and_read_exactly(bench, update_of):
    network = update_of("replay_lwf")
    network.foreground_bias = 0.5
    files = write_adapter(network, {}, bench.record(network))
    read = read_adapter(bench.weights, files, CPU)
    digests = [sample.digest for sample in bench.samples["south", Split.TEST]]
    asked = (probabilities(some, bench.cache, digests, lambda _n: None) for some in (network, read))
    network.foreground_bias = 0.0
    assert np.array_equal(*asked) or read.foreground_bias == 0.5
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in network.state_dict().items())
    told = json.loads(files["record.json"])["network"]
    assert (told["prompt"], told["judged_with"]) == ("box", "each mask's own box (oracle prompt)")
    card = files["README.md"].decode()
    assert "asked with each mask's own box (oracle prompt)" in card
    assert len(files["golden.safetensors"]) < 10_000


def test_another_head_does_not_reproduce_the_golden_outputs(bench, champion, update_of):
    other = write_adapter(update_of("naive"), {}, bench.record(update_of("naive")))
    with pytest.raises(AdapterMismatchError, match="golden outputs differ"):
        read_adapter(bench.weights, {**champion.files, "head.safetensors": other["head.safetensors"]}, CPU)


def test_peft_loads_the_adapter_onto_litemedsams_own_encoder(bench, champion, tmp_path):
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes(champion.files[name])
    model = PeftModel.from_pretrained(build_backbone(bench.weights).image_encoder, tmp_path)
    image = torch.rand(1, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    ours, own = champion.network(), build_backbone(bench.weights).image_encoder
    with torch.no_grad():
        wanted = ours.embedding(ours.prefix(image))
        encoder = model.base_model.model
        for part in (encoder, own):
            part.eval()
        plain = build_backbone(bench.weights)
        tokens = plain.prefix(image, 10)
        untuned = plain.image_encoder.neck(tokens.transpose(1, 2).reshape(1, -1, SIDE_PX // 4, SIDE_PX // 4))
        found = _embedded_by(encoder, image)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(untuned, wanted, atol=1e-3)


def _embedded_by(encoder, image):
    tokens = encoder.patch_embed(image)
    for layer in encoder.layers:
        tokens = layer(tokens)
    return encoder.neck(tokens.transpose(1, 2).reshape(1, -1, SIDE_PX // 4, SIDE_PX // 4))


@pytest.mark.parametrize("name", REGULARISING)
def test_a_regulariser_adds_nothing_at_the_champion_and_something_away_from_it(champion, name):
    network = champion.network()
    anchor = {key: weight.detach().clone() for key, weight in network.trainable().items()}
    context = StrategyContext(None, champion.importance, anchor, batch_size=4, regularisation=1e6)
    (penalty,) = [plugin for plugin in STRATEGIES[name].plugins(context) if hasattr(plugin, "penalty")]
    assert penalty.penalty(network).item() == 0
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(0.01)
    assert penalty.penalty(network).item() > 0
    assert set(champion.importance) == set(network.trainable())


@pytest.mark.parametrize("method", list(PEFT_METHODS))
def test_every_peft_method_fits_the_encoder_and_starts_as_the_identity(bench, method):
    shape = replace(bench.shape, method=method, alpha=usual_alpha(method, bench.shape.rank))
    tuned, plain = bench.fresh(shape), bench.fresh()
    inputs = bench.cache.tokens(bench.samples["north", Split.TEST][0].digest, 0)
    tokens = torch.from_numpy(inputs).float()[None]
    with torch.no_grad():
        assert torch.allclose(tuned.embedding(tokens), plain.embedding(tokens), atol=1e-3)


def test_draws_ask_for_classes_that_an_image_holds_every_site_and_class_alike(bench):
    samples = [s for site in COLOURS for s in bench.samples[site, Split.TRAIN]]
    draws = box_draws(bench.cache, samples, CLASSES, 2000, 1, seed=3)
    for draw in draws:
        assert (bench.cache.mask(draw.sample, 0) == draw.number).any()
    for share in ([d.number == 2 for d in draws], [d.sample.site == "north" for d in draws]):
        assert np.mean(share) == pytest.approx(0.5, abs=0.05)
    assert draws == box_draws(bench.cache, samples, CLASSES, 2000, 1, seed=3)


def test_masks_without_any_class_cannot_be_asked_for(bench, tmp_path):
    empty = TileCache(
        tmp_path, bench.cache.key, SIDE_PX, build_backbone(bench.weights), CPU, lambda _s: np.zeros((48, 64), np.uint8)
    )
    with pytest.raises(StreamError, match="none of 4 masks holds a class to draw a box around"):
        box_draws(empty, bench.samples["north", Split.TRAIN], CLASSES, 8, 1, seed=3)


def test_training_boxes_are_loosened_outwards_within_the_square_the_same_every_time():
    tight = Box(10, 0, 30, 60)
    loose = [loosened(tight, f"key {number}", 64) for number in range(50)]
    assert loose[0] == loosened(tight, "key 0", 64) != loose[1]
    reach = 64 * 20 / 1024
    for box in loose:
        assert 10 - reach <= box.left <= 10
        assert box.top == 0
        assert 30 <= box.right <= 30 + reach
        assert 60 <= box.bottom <= 60 + reach


def test_what_can_be_had_without_looking_is_the_filled_box(bench):
    outcomes, _ = bench.score(bench.fresh(), "north")
    masks = [bench.cache.whole_mask(sample) for sample in bench.samples["north", Split.TEST]]
    filled = []
    for mask in masks:
        answer = np.zeros_like(mask)
        for number, box in boxes_of(mask, 2).items():
            answer[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = number
        filled.append(dice(mask, answer, 2))
    assert np.mean(filled) > chance_dice(masks, 2)
    assert outcomes.chance == pytest.approx(np.mean(filled))


def test_what_is_served_under_the_masks_boxes_is_what_was_judged(bench, champion):
    predictor = load_predictor(bench.weights.data, champion.files)
    assert isinstance(predictor, BoxPredictor)
    samples = bench.samples["north", Split.TEST]
    served = []
    for sample in samples:
        mask = bench.cache.whole_mask(sample)
        boxes = {CLASSES[number - 1]: box for number, box in boxes_of(mask, 2).items()}
        answer = predictor.predict_boxed(bench.images[sample.digest], boxes).mask
        assert answer.shape == mask.shape
        served.append(dice(mask, answer, 2))
    assert np.mean(served) == pytest.approx(bench.score(champion.network(), "north")[1].dice, abs=5e-3)


def test_the_box_decides_the_mask_and_a_class_without_one_is_not_looked_for(bench, champion):
    predictor = load_predictor(bench.weights.data, champion.files)
    pixels = bench.images[bench.samples["north", Split.TEST][1].digest]
    first, second = (predictor.predict_boxed(pixels, {"stripe": box}) for box in (Box(0, 0, 64, 48), Box(0, 0, 20, 20)))
    assert not np.array_equal(first.mask, second.mask)
    assert first.shares["spot"] == second.shares["spot"] == 0
    whole = predictor.predict_boxed(pixels, {"": Box(0, 0, 64, 48)})
    assert np.array_equal(whole.mask, predictor.predict_mask(pixels).mask)


def test_a_box_beyond_the_image_or_of_an_unknown_class_is_refused(bench, champion):
    predictor = load_predictor(bench.weights.data, champion.files)
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    with pytest.raises(PromptError, match=r"box 0,0,65,48 reaches beyond the image of 64 x 48 pixels"):
        predictor.predict_boxed(pixels, {"": Box(0, 0, 65, 48)})
    with pytest.raises(PromptError, match="it tells apart stripe, spot"):
        predictor.predict_boxed(pixels, {"vessel": Box(0, 0, 10, 10)})


def test_calibration_fits_bias_and_temperature_under_oracle_boxes(bench, champion):
    network = champion.network()
    held = bench.samples["north", Split.TEST]
    temperature = calibrate(network, bench.cache, held, lambda _n: None)
    assert temperature == network.temperature != 1.0
    means = probabilities(network, bench.cache, [sample.digest for sample in held], lambda _n: None)
    assert means.shape == (2, 3)
    assert np.allclose(means.sum(axis=1), 1, atol=1e-5)


def test_an_image_keeps_its_shape_in_the_square_and_scores_come_back_to_it():
    framing = Framing(64, padded=True)
    image = np.full((50, 100, 3), 40, np.uint8)
    image[10:20] = 90
    framed = framing.pixels(image)
    assert framing.extent(50, 100) == (32, 64)
    assert (framed[:32].max(), framed[:4].max(), framed[32:].max()) == (255, 0, 0)
    mask = framing.mask(np.ones((50, 100), np.uint8))
    assert (mask[:32] == 1).all()
    assert (mask[32:] == IGNORED).all()
    assert framing.box(Box(0, 0, 100, 50), 50, 100) == Box(0, 0, 64, 32)
    scores = torch.zeros(2, 64, 64)
    scores[1, 32:] = 9
    assert framing.back(scores, 50, 100).shape == (2, 50, 100)
    assert framing.back(scores, 50, 100).max() == 0


def test_what_litemedsam_cannot_be_is_refused_with_the_remedy(bench):
    network = build_backbone(bench.weights)
    with pytest.raises(LearningError, match="images of 224 pixels, and litemedsam sees 64; choose --image-size 64"):
        check_image_size(network, 224)
    with pytest.raises(LearningError, match="tiles of 32 pixels were asked for; leave out --tile"):
        check_tile(network, TileGrid(64, 32))
    with pytest.raises(LearningError, match="the whole of litemedsam is never tuned"):
        first_tuned_block(network, LoraShape(method=WHOLE_BACKBONE))
    with pytest.raises(LearningError, match="LoRA in the last 11 blocks of a backbone with 10; choose 1 to 10"):
        first_tuned_block(network, LoraShape(blocks=11))
