"""The outcome of a stream as plain JSON: result matrix, derived scores, verdicts, versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from continual.domain.adapters import AdapterState, AdapterVersion
from continual.domain.metrics import METRICS, summarise
from continual.domain.samples import Split
from continual.learning import VersionNetwork, update_strategy
from flows.benchmarks.stream_runs import Start, run_strategy
from flows.progress import say
from flows.updates.adapter_context import AdapterContext
from flows.updates.evaluation import chance_on, evaluate, labelled_samples, split_digest


def matrix_row(context: AdapterContext, network: VersionNetwork, sites: Sequence[str]) -> dict[str, float]:
    """The metric of one network on each site's frozen test split."""
    tested = evaluate(context, network, sites, Split.TEST)
    return {site: score.value for site, (_, score) in tested.items()}


def version_row(context: AdapterContext, version: AdapterVersion, sites: Sequence[str]) -> dict[str, float]:
    """A version's row on the test splits as they are now: what its record holds of them, else a fresh evaluation.

    A split grows with new patients and late labels, and rows of different splits cannot be compared.
    """
    row = dict(version.metrics)
    asked = [site for site in sites if site not in row or not _same_split(context, version, site)]
    if asked:
        row |= matrix_row(context, context.network_of(version), asked)
    return {site: row[site] for site in sites}


def _same_split(context: AdapterContext, version: AdapterVersion, site: str) -> bool:
    """Whether a site's test split is still the one that a version was judged on."""
    samples = labelled_samples(context, site, Split.TEST)
    return version.was_judged_on(site, split_digest(samples), len(samples))


def stream_result(context: AdapterContext, wanted: Sequence[str]) -> dict[str, Any]:
    """Everything `result.json` holds about the adapter's stream over the wanted sites that have a labelled test split,
    and the verdicts on all.

    The sites come in the order in which they were learnt, whatever order they are named in. `result_matrix` has one row
    per version; the derived scores follow the version in service after each site.
    """
    versions = context.registry.adapters.list(context.name)
    sites = _as_learnt([site for site in wanted if labelled_samples(context, site, Split.TEST)], _begun(versions))
    rows = {version.number: version_row(context, version, sites) for version in versions}
    chance = [chance_on(context, site) for site in sites]
    champion = context.champion()
    serving = _in_service(versions, champion or versions[0], sites)
    service = [[rows[number][site] for site in sites] for number in serving]
    return {
        "adapter": context.name,
        "sites": list(sites),
        "sites_without_labelled_test": [site for site in wanted if site not in sites],
        "metric": METRICS[context.options.task],
        "result_matrix": [[rows[version.number][site] for site in sites] for version in versions],
        **derived_scores(service, sites, chance),
        "drift": _verdicts(context, wanted),
        "versions": [
            {
                "number": version.number,
                "digest": version.digest,
                "strategy": version.strategy,
                "state": version.state.value,
            }
            for version in versions
        ],
        "champion": champion.number if champion else None,
        "trainable_share": champion.record["network"]["trainable_share"] if champion else None,
        "weights_bytes": _weights_bytes(champion) if champion else None,
        "calibration_error": _of_scores(champion, "calibration_error") if champion else {},
        "calibration_floor": _of_scores(champion, "calibration_floor") if champion else {},
    }


def derived_scores(service: Sequence[Sequence[float]], sites: Sequence[str], chance: Sequence[float]) -> dict[str, Any]:
    """ACC, BWT, FWT, forgetting per site and worst-site figures of a square matrix as JSON, null where it is empty."""
    if not sites:
        return dict.fromkeys(("acc", "bwt", "fwt", "worst_site", "worst_site_drop")) | {"forgetting": {}}
    scores = summarise(service, sites, chance)
    return {
        "acc": scores.acc,
        "bwt": scores.bwt,
        "fwt": scores.fwt,
        "forgetting": dict(scores.forgetting),
        "worst_site": scores.worst_site,
        "worst_site_drop": scores.worst_site_drop,
    }


def reference_results(context: AdapterContext, strategies: Sequence[str], sites: Sequence[str]) -> dict[str, Any]:
    """Every strategy's `reference_result` over those of the sites that can be learnt, which it names; none, with a word
    to whoever watches, where the site of the release is not the first of them.
    """
    learnable = [site for site in sites if labelled_samples(context, site, Split.TRAIN)]
    release = _accepted(context.registry.adapters.list(context.name))[0].trained_on[0]
    if learnable[:1] != [release]:
        say(f"no reference beside it: one starts from the release at {release}, which is not the first site named")
        return {}
    return {name: reference_result(context, name, learnable) | {"sites": learnable} for name in strategies}


def reference_result(context: AdapterContext, strategy: str, sites: Sequence[str]) -> dict[str, Any]:
    """The same stream under another strategy, from the release, the first accepted version; nothing is registered.

    Raises StreamError for a strategy that cannot start from an adapter version, or that does not exist.
    """
    update_strategy(strategy)
    release = _accepted(context.registry.adapters.list(context.name))[0]
    run = run_strategy(context, strategy, sites, Start(context.lora_network_of(release)))
    chance = [chance_on(context, site) for site in sites]
    return {"result_matrix": run.matrix, **derived_scores(run.matrix, sites, chance)}


def _begun(versions: Sequence[AdapterVersion]) -> dict[str, int]:
    """Number of the first version of each site that was to be learnt."""
    begun: dict[str, int] = {}
    for version in versions:
        begun.setdefault(version.record["experience"]["site"], version.number)
    return begun


def _as_learnt(sites: Sequence[str], begun: Mapping[str, int]) -> list[str]:
    """The sites with those learnt in the order of learning; one that nobody was to learn keeps its place."""
    ordered = iter(sorted((site for site in sites if site in begun), key=begun.__getitem__))
    return [next(ordered) if site in begun else site for site in sites]


def _in_service(versions: Sequence[AdapterVersion], latest: AdapterVersion, sites: Sequence[str]) -> list[int]:
    """Number of the version in service after each site, before the next one was first learnt; `latest` after the last.

    A rejected or skipped update leaves the version before.
    """
    accepted, begun = [version.number for version in _accepted(versions)], _begun(versions)
    serving = []
    for place in range(1, len(sites)):
        following = min((begun[site] for site in sites[place:] if site in begun), default=latest.number + 1)
        serving.append(max((number for number in accepted if number < following), default=versions[0].number))
    return [*serving, latest.number]


def _accepted(versions: Sequence[AdapterVersion]) -> list[AdapterVersion]:
    return [version for version in versions if version.state is AdapterState.ACCEPTED]


def _verdicts(context: AdapterContext, sites: Sequence[str]) -> Mapping[str, str]:
    """The adapter's own last verdict on each site that it looked at."""
    reports = {site: context.registry.drift.latest(site, context.name) for site in sites}
    return {site: report.verdict.value for site, report in reports.items() if report is not None}


def _weights_bytes(version: AdapterVersion) -> int:
    """What serving needs beside the backbone, whichever kind the version is of."""
    names = ("adapter_model.safetensors", "head.safetensors", "closed_form.safetensors", "projection.safetensors")
    return sum(version.files[name][1] for name in names if name in version.files)


def _of_scores(version: AdapterVersion, name: str) -> dict[str, float]:
    """One entry of each site's scores; what an older release did not measure yet is left out."""
    return {site: score[name] for site, score in version.record["scores"].items() if name in score}
