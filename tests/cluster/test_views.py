"""Views of one tissue: PCs at three scales by hand, and the vote of all partitions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster import consensus, views
from scrcl.method.training import Embedded
from scrcl.prepare.scales import RINGS, at_scales
from scrcl.prepare.tissue import views_of

SETTINGS = SimpleNamespace(cluster_method="gmm", mixture_dims=[2, 3], mixture_rounds=0, device="cpu")


def blobs(n: int = 120, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around three centres, and which."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return (rng.normal(size=(n, d)) + 8 * np.eye(3, d)[labels]).astype(np.float32), labels


def test_a_view_has_every_scale_with_the_same_variance():
    points, _ = blobs(64)
    places = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    found = at_scales(points, places)
    assert found.shape == (64, 3 * 6) and found.dtype == np.float32
    assert np.isclose(found.var(axis=0).sum(), 3, rtol=1e-4)  # a total variance of 1 for each of three scales
    # The dense way; distances do not depend on the rotation into components.
    line = np.stack([np.arange(64.0) ** 1.01, np.zeros(64)], axis=1)  # no two distances from a spot are the same
    away = np.abs(line[:, :1] - line[:, 0])
    scales = [points, *(points[np.argsort(away, axis=1)[:, : k + 1]].mean(axis=1) for k in RINGS)]
    dense = np.hstack([scale / np.sqrt(scale.var(axis=0).sum()) for scale in scales])
    assert np.allclose(_between(at_scales(points, line)), _between(dense), atol=1e-3)


def _between(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points, axis=-1)


def test_scales_do_not_cross_sections():
    points, _ = blobs(40)
    sections = np.repeat(["a", "b"], 20)
    together = np.tile(np.stack([np.arange(20.0), np.zeros(20)], axis=1), (2, 1))
    apart = together + (sections == "b")[:, None] * 1e6
    assert np.array_equal(at_scales(points, together, sections), at_scales(points, apart))
    assert not np.allclose(_between(at_scales(points, together)), _between(at_scales(points, apart)))


def test_views_of_plain_genes_do_not_depend_on_the_length_of_rows():
    """Ten times the values of a spot change the view of weighted genes alone."""
    points, _ = blobs(64)
    places = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    longer = points * np.where(np.arange(64) % 2, 10, 1)[:, None]
    found, other = (views_of(values, values, places, None) for values in (points, longer))
    assert [(name, view.shape[1]) for name, view in found.items()] == [
        ("genes of the encoder", 18), ("genes, one ring", 12), ("genes, two rings", 18)
    ]  # fmt: skip
    same = [np.allclose(_between(found[name]), _between(other[name]), atol=1e-3) for name in found]
    assert same == [False, True, True]


def embedded(points: np.ndarray) -> Embedded:
    lengths = np.full((len(points), 2), 2.0)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return Embedded(np.hstack([unit, unit]).astype(np.float32), unit[:, :2].astype(np.float32), lengths)


def test_all_views_are_in_the_order_of_the_cells():
    points, _ = blobs()
    order = np.random.default_rng(1).permutation(len(points))
    straight = views.all_views(embedded(points), {"genes": points}, None)
    shuffled = views.all_views(embedded(points[order]), {"genes": points}, order)
    assert list(straight) == ["genes", "encoder beside expression"]
    for name in straight:
        assert np.allclose(straight[name], shuffled[name], atol=1e-5)


def test_every_view_is_clustered_in_every_way_and_votes():
    points, known = blobs()
    labels, voters = views.vote({"one": points, "two": points[:, ::-1]}, 3, SETTINGS, 0)
    assert list(voters) == [
        f"{view}, {way}" for view in ("one", "two") for way in ("2 dimensions", "3 dimensions", "k-means")
    ]
    assert adjusted_rand_score(labels, known) > 0.95
    assert np.array_equal(labels, consensus.consensus(list(voters.values()), 3))


def test_a_view_that_is_noise_is_outvoted():
    points, known = blobs()
    noise = np.random.default_rng(2).normal(size=points.shape)
    labels, _ = views.vote({"one": points, "noise": noise, "two": points}, 3, SETTINGS, 0)
    assert adjusted_rand_score(labels, known) > 0.95


@pytest.mark.parametrize("method", ["kmeans", "leiden"])
def test_another_method_votes_alone(method):
    points, _ = blobs()
    settings = SimpleNamespace(cluster_method=method, mixture_dims=[2, 3], mixture_rounds=0, device="cpu")
    labels, voters = views.vote({"one": points}, 3, settings, 0)
    assert len(voters) == 1 and len(np.unique(labels)) == 3
