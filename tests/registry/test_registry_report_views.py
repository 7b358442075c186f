"""What stands beside a drift report: what was there when it was filed, and images only while they are stored."""

from continual.domain.digests import sha256_bytes
from continual.domain.drift import Action, DriftReport, RootCause, Verdict
from continual.domain.drift_views import ExampleImage, ProjectedGroup, Projection, Side
from continual.domain.samples import CleanImage
from registry import ErasureOrder, report_view, store_projection

MAP = Projection((ProjectedGroup("north", Side.CURRENT, 2, (0.5, 0.25), ((1.0, 0.5), (0.0, 0.0))),), (0.75, 0.125))


def store(registry, count):
    images = [
        CleanImage(sha256_bytes(bytes([n])), "north", f"{n:016x}", None, f"picture {n}".encode(), 4, 4)
        for n in range(count)
    ]
    registry.samples.record("north", images, [], "test")
    return [image.digest for image in images]


def report_on(digests, **more):
    cause = RootCause("tag maker moved most", (), (), tuple(digests[:1]), tuple(digests[1:]))
    return DriftReport(
        "north", "north", Verdict.COVARIATE_SHIFT, Action.LOG, "it drifted", 0.05, 9, 9, 9, 9, 0, (),
        root_cause=cause, **more,
    )  # fmt: skip


def test_images_are_read_when_asked_for_so_erased_and_lost_ones_are_not_there(registry):
    digests = store(registry, 3)
    report = registry.drift.add(report_on(digests), "test")
    registry.erasures.erase(ErasureOrder("north", f"{1:016x}", "test", "withdrawn"))
    registry.artifacts.delete(registry.samples.get([digests[2]])[0].artifact)
    assert report_view(registry, report).images == {
        digests[0]: ExampleImage(b"picture 0"),
        digests[1]: ExampleImage(None, "erased"),
        digests[2]: ExampleImage(None, "not kept"),
    }


def test_a_stored_map_is_read_back_and_a_lost_one_leaves_a_gap(registry):
    address = store_projection(registry, MAP)
    report = registry.drift.add(report_on([], projection=address), "test")
    assert report_view(registry, report).projection == MAP
    registry.artifacts.delete(address)
    assert report_view(registry, report).projection is None


def test_looks_of_another_adapter_at_the_site_do_not_stand_beside_a_report(registry):
    ours, _, last = [registry.drift.add(report_on([], adapter=name), "test") for name in ("cells", "vessels", "cells")]
    assert report_view(registry, last).looks == (ours, last)
    assert registry.drift.until(last, 2) == [ours, last]


def test_looks_beside_a_report_are_its_sites_until_itself_oldest_first(registry):
    first = registry.drift.add(report_on([]), "test")
    second = registry.drift.add(report_on([]), "test")
    registry.drift.add(report_on([]), "test")
    assert report_view(registry, second).looks == (first, second)
    assert registry.drift.until(second, 1) == [second]
