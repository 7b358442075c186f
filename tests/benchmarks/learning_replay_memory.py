"""ACC and BWT by size of the replay memory on the four white-blood-cell sites, and the same memory without images.

With images: `continual benchmark`'s own functions, one seed and the given site order for each size. Without: the main
job's functions, with a gate that refuses nothing, so that it learns what the other learns; its images are really gone.
Interrupted, the same command with the same `--workspace` goes on where it stopped.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning_stream import SITES, thin
from report import Row, arguments, data_folder, publish, weights_file

if TYPE_CHECKING:
    from flows.requests import Incoming
    from flows.updates.adapter_context import AdapterOptions

SIZES = (0, 50, 100, 200, 400)
WITHOUT = 200
QUICK_SIZES = (0, 40)
QUICK_WITHOUT = 40
STRATEGY = "replay_ewc"
ADAPTER = "white-blood-cells"
MOST_APART = 0.02


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--workspace", type=Path, help="folder that is kept, to go on after an interruption")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.workspace or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        manifest = data_folder() / "white_blood_cells" / "manifest.csv"
        raw = measure(folder, thin(manifest, folder) if options.quick else manifest, options.quick)
    publish(rows(raw), raw, options.json)


def measure(folder: Path, manifest: Path, quick: bool) -> dict[str, Any]:
    """Every size with images, then one without."""
    from continual.learning import LoraShape, TrainingOptions
    from flows.commands.command_options import prepare_workspace
    from flows.requests import Incoming
    from flows.updates.adapter_context import AdapterOptions

    prepare_workspace(folder / "with_images", None)
    incoming = Incoming(str(manifest))
    shape, training = (LoraShape(blocks=2), TrainingOptions(steps=40)) if quick else (LoraShape(), TrainingOptions())
    options = AdapterOptions(126, shape, training)
    sizes, without = (QUICK_SIZES, QUICK_WITHOUT) if quick else (SIZES, WITHOUT)
    curve = {size: with_images(folder, incoming, options, size) for size in sizes}
    return {"curve": curve, "size": without, "without": without_images(folder, incoming, options, without)}


def with_images(folder: Path, incoming: "Incoming", options: "AdapterOptions", size: int) -> dict[str, Any]:
    """One strategy over the stream with a memory of this size."""
    from flows.benchmarks.benchmark import BenchmarkPlan, run_benchmark

    wanted = replace(options, plan=replace(options.plan, replay_samples=size))
    # Without a memory there is nothing to replay and nothing to measure importance on.
    strategy = STRATEGY if size else "naive"
    plan = BenchmarkPlan(SITES, (strategy,), str(weights_file()), None, wanted, 1, 1, (options.lora.rank,))
    (cell,) = run_benchmark(str(folder / "with_images"), incoming, plan, folder / f"memory_{size}.json")["cells"]
    return {
        "acc": cell["scores"]["acc"],
        "bwt": cell["scores"]["bwt"],
        "replay_bytes": cell["costs"]["replay_bytes"],
        "result_matrix": cell["result_matrix"],
    }


def without_images(folder: Path, incoming: "Incoming", options: "AdapterOptions", size: int) -> dict[str, Any]:
    """Release and updates as the main job does them, images let go after each."""
    from continual.domain.drift import Action
    from flows.benchmarks.results import stream_result
    from flows.ingest import take_in
    from flows.requests import Release
    from flows.update import look_and_learn, release
    from flows.updates.adapter_context import context_of
    from flows.updates.memory_content import memory_view
    from flows.updates.occasions import Occasion
    from flows.workplace import open_workplace

    # As the benchmark learns: every site, whatever the gate says and however few labels it has.
    open_gate = {"past_site_margin": -1.0, "past_site_drop": 1.0, "new_site_gain": -1.0}
    plan = replace(options.plan, replay_samples=size, keep_images=False, minimum_labelled=1, **open_gate)
    wanted = Release(ADAPTER, str(weights_file()), None, replace(options, plan=plan).as_record())
    workspace = str(folder / "without_images")
    if not Path(workspace).exists():
        # What was computed once need not be computed again: the same images, backbone and side.
        draft = folder / "copied"
        shutil.copytree(folder / "with_images" / "activations", draft / "activations", dirs_exist_ok=True)
        draft.rename(workspace)
    learnt = {}
    for site in SITES:
        take_in(workspace, incoming, site, None)
        if site == SITES[0]:
            learnt[site] = f"version {release(workspace, site, wanted).number}"
        else:
            learnt[site] = look_and_learn(workspace, ADAPTER, site, STRATEGY, Occasion(tuple(Action)))
    with open_workplace(workspace) as workplace:
        result = stream_result(context_of(workplace, ADAPTER), SITES)
        memory = memory_view(workplace, ADAPTER)
        let_go = sum(entry.images for entry in workplace.registry.images.list())
    return {
        "acc": result["acc"],
        "bwt": result["bwt"],
        "replay_bytes": memory.size_bytes,
        "images_left": sum(row["images"] for row in memory.sites),
        "images_let_go": let_go,
        "kept_bytes": sum(row["activation_bytes"] for row in memory.sites),
        "result_matrix": result["result_matrix"],
        "learnt": learnt,
    }


def rows(raw: dict[str, Any]) -> list[Row]:
    """The curve, and what was asked of the memory without images."""
    table = [
        Row(f"memory of {size}: ACC, BWT", "-", f"{cell['acc']:.3f}, {cell['bwt']:+.3f}", None)
        for size, cell in raw["curve"].items()
    ]
    beside, without = raw["curve"][raw["size"]], raw["without"]
    apart = without["acc"] - beside["acc"]
    return [
        *table,
        Row(
            f"memory of {raw['size']} without images: ACC, BWT",
            f"within {MOST_APART} of ACC",
            f"{without['acc']:.3f}, {without['bwt']:+.3f} ({apart:+.3f})",
            abs(apart) <= MOST_APART,
        ),
        Row(
            "images left without images",
            "0",
            f"{without['images_left']} ({without['images_let_go']} let go)",
            without["images_left"] == 0 and without["images_let_go"] > 0,
        ),
        Row(
            "bytes of that memory, activations beside images",
            "-",
            f"{without['replay_bytes'] / 1e6:.1f} MB, {beside['replay_bytes'] / 1e6:.1f} MB",
            None,
        ),
    ]


if __name__ == "__main__":
    main()
