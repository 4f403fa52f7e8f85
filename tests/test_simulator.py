"""The simulated tunnel is reproducible, plausible, hard enough, and its knobs do what they say."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score

from defects.simulator import BLOCK, CLASS_MIX, SCHEMA, SENSORS, SITES, Tunnel


def column(tunnel: Tunnel, name: str, rows: int = 20_000) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return tunnel.scans(rows).features[:, SCHEMA.names.index(name)]


def test_the_same_seed_gives_the_same_parcels_however_many() -> None:
    few, many = Tunnel(seed=3).scans(100), Tunnel(seed=3).scans(BLOCK + 5)
    np.testing.assert_array_equal(few.features, many.features[:100])
    streamed = np.concatenate([b.features for b in islice(Tunnel(seed=3).stream(), 2)])
    np.testing.assert_array_equal(many.features, streamed[: BLOCK + 5])
    assert not np.array_equal(few.features, Tunnel(seed=4).scans(100).features, equal_nan=True)
    assert Tunnel().scans(0).features.shape == (0, len(SCHEMA.names))


@pytest.mark.parametrize("site", SITES)
def test_every_value_is_allowed_by_the_schema(site: str) -> None:
    scans = Tunnel(seed=1, site=site, drift=dict.fromkeys(SENSORS, 3.0)).scans(BLOCK)
    SCHEMA.check(scans.features.astype(np.float64))


def test_class_mix_dropout_and_correlation_are_realistic() -> None:
    scans = Tunnel(seed=1).scans(BLOCK)
    shares = np.bincount(scans.labels) / BLOCK
    np.testing.assert_allclose(shares, list(CLASS_MIX.values()), atol=0.01)
    missing = np.isnan(scans.features).mean(axis=0)
    assert all(0 < m < 0.08 if f.optional else m == 0 for m, f in zip(missing, SCHEMA.features, strict=True))
    volume = scans.features[:, :3].prod(axis=1)
    weight = scans.features[:, SCHEMA.names.index("weight_g")]
    assert np.corrcoef(np.log(volume), np.log(weight))[0, 1] > 0.7


def test_a_good_model_is_good_but_not_perfect() -> None:
    fit, test = Tunnel(seed=1).scans(20_000), Tunnel(seed=2).scans(20_000)
    model = HistGradientBoostingClassifier(random_state=0).fit(fit.features, fit.labels)
    assert 0.93 <= f1_score(test.labels, model.predict(test.features), average="macro") <= 0.97


def test_drift_moves_only_its_sensor() -> None:
    before, after = (Tunnel(seed=1, drift=drift).scans(5_000).features for drift in ({}, {"moisture": 1.5}))
    for i, name in enumerate(SCHEMA.names):
        if name in {f.name for f in SENSORS["moisture"].features}:
            assert np.nanmean(after[:, i]) > np.nanmean(before[:, i])
        else:
            np.testing.assert_array_equal(before[:, i], after[:, i])


def test_class_mix_shifts() -> None:
    labels = Tunnel(seed=1, class_mix={"ok": 1, "wet": 1}).scans(20_000).labels
    assert set(labels) == {0, 3}
    assert abs((labels == 3).mean() - 0.5) < 0.02


def test_a_faulty_sensor_freezes_and_loses_readings() -> None:
    values = column(Tunnel(seed=1, faulty_sensor="verifier"), "barcode_contrast_pct")
    assert 0.3 < np.isnan(values).mean() < 0.4
    assert len(np.unique(values[~np.isnan(values)])) == 1


def test_sites_differ() -> None:
    assert np.nanmean(column(Tunnel(site="coast"), "surface_moisture_pct")) > 3 + np.nanmean(
        column(Tunnel(site="inland"), "surface_moisture_pct")
    )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"site": "moon"}, "site: 'moon' is unknown; expected one of inland, coast, hub"),
        ({"drift": {"nose": 1.0}}, "drift: 'nose' is unknown"),
        ({"class_mix": {"lost": 1}}, "class_mix: 'lost' is unknown"),
        ({"class_mix": {"ok": 0}}, "must not all be zero"),
        ({"class_mix": {"ok": -1, "wet": 2}}, "must not be negative"),
        ({"faulty_sensor": "nose"}, "faulty_sensor: 'nose' is unknown"),
    ],
)
def test_unknown_knobs_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tunnel(**knobs)  # type: ignore[arg-type]
