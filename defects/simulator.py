"""Make the built-in data: a simulated scan tunnel measures parcels on a conveyor belt.

THIS IS SIMULATED DATA. No parcel was measured. It exists so that everything can be trained, served, loaded and
monitored out of the box, and so that drift can be produced on demand. What it models, and how:

- Parcels are drawn from a few carton families (mailers to large cartons); sizes are log-normal within a family,
  weight is volume times a log-normal packing density.
- A defective parcel has a severity in (0, 1]; every symptom grows with it. Mild defects overlap with sound parcels,
  and a sound parcel may carry scuffs, slack tape or a poor print, so no classifier can be perfect.
- Crushing lowers the cuboid fit, bends edges and dents the top; punctures leave holes and tears; water darkens
  and cools the surface and blurs the print; an open flap raises a flap, opens the seam and lacks tape; a damaged
  label loses print contrast, decodes and visible area.
- Fast belts blur the line camera; a camera's contrast and a hall's humidity differ by site.
- Sensors drop out: at random, and more often where the cause is physical (an unreadable label has no contrast).

Every random number comes from the seed. Parcels are made in fixed blocks, so the first n parcels of a stream are
the same however many are asked for, and the same parcels pass under different sites, drifts and faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from defects.features import DefectClass, Feature
from defects.schema import Rows, Schema

BLOCK = 1 << 16  # parcels made at a time

Column = NDArray[np.float64]  # one value for each parcel


class Scans(NamedTuple):
    """Features as float32 `[rows, features]`, NaN where a sensor gave nothing; labels as class indices `[rows]`."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


CLASSES = (
    DefectClass("ok", "no defect; the parcel travels on"),
    DefectClass("crushed", "the carton is compressed or dented"),
    DefectClass("punctured", "a hole or tear goes through the carton"),
    DefectClass("wet", "the surface is wet or water-stained"),
    DefectClass("open_flap", "a flap or the closing seam is open"),
    DefectClass("label_damaged", "the shipping label is torn, smeared or covered"),
)
CLASS_MIX = {
    "ok": 0.72, "crushed": 0.09, "punctured": 0.05, "wet": 0.04, "open_flap": 0.04, "label_damaged": 0.06,
}  # fmt: skip


class _Sensor(NamedTuple):
    """The features that one device measures and how often a reading of it is lost at random."""

    dropout: float
    features: tuple[Feature, ...]


SENSORS = {
    "dimensioner": _Sensor(0.0, (
        Feature("length_mm", "mm", "longest side of the bounding box", 50, 1500),
        Feature("width_mm", "mm", "second side of the bounding box", 30, 1000),
        Feature("height_mm", "mm", "height above the belt", 5, 1000),
        Feature("belt_speed_mm_s", "mm/s", "belt speed while the parcel was scanned", 100, 4000),
    )),
    "scale": _Sensor(0.0, (
        Feature("weight_g", "g", "weight", 5, 70_000),
        Feature("weight_deviation_pct", "%", "weight against the one declared by the shipper", -100, 500),
    )),
    "depth": _Sensor(0.01, (
        Feature("cuboid_fit_pct", "%", "measured volume as a share of the bounding box", 0, 100),
        Feature("top_roughness_mm", "mm", "root-mean-square deviation of the top from a plane", 0, 200),
        Feature("edge_deviation_mm", "mm", "largest deviation of an edge from a straight line", 0, 300),
        Feature("flap_angle_deg", "deg", "largest angle of a flap above the top", 0, 180),
        Feature("seam_gap_mm", "mm", "widest gap in the closing seam", 0, 300),
    )),
    "camera": _Sensor(0.005, (
        Feature("tear_length_mm", "mm", "longest contour of a tear or hole", 0, 2000),
        Feature("hole_area_mm2", "mm²", "area seen as hole", 0, 500_000),
        Feature("dark_area_pct", "%", "share of the surface darker than dry cardboard", 0, 100),
        Feature("texture_contrast", "", "local contrast of the surface, 0 to 1", 0, 1),
        Feature("tape_coverage_pct", "%", "share of the seam covered by tape", 0, 100),
    )),
    "verifier": _Sensor(0.01, (
        Feature("barcode_contrast_pct", "%", "symbol contrast of the barcode (ISO/IEC 15416)", 0, 100),
        Feature("barcode_decode_rate", "", "share of scan lines that decode, 0 to 1", 0, 1),
        Feature("label_visible_pct", "%", "share of the label's area that is visible", 0, 100),
        Feature("label_skew_deg", "deg", "rotation of the label against the carton", -90, 90),
    )),
    "moisture": _Sensor(0.02, (
        Feature("surface_moisture_pct", "%", "surface moisture by near-infrared reflection", 0, 100),
        Feature("surface_temperature_c", "°C", "surface temperature by infrared", -30, 80),
    )),
}  # fmt: skip


class Site(NamedTuple):
    """What differs between fulfilment centres."""

    humidity_pct: float  # added to every moisture reading
    temperature_c: float  # of the hall
    belt_speed_mm_s: float
    camera_gain: float  # multiplies the camera's contrast
    large_cartons: float  # weight of the largest carton family against the others


SITES = {
    "inland": Site(0.0, 19.0, 1800.0, 1.0, 1.0),
    "coast": Site(5.0, 16.0, 1700.0, 0.95, 0.9),
    "hub": Site(1.0, 21.0, 2600.0, 0.9, 2.0),
}


def _schema() -> Schema:
    example = {
        "length_mm": 402.0, "width_mm": 298.0, "height_mm": 213.0, "belt_speed_mm_s": 1790.0, "weight_g": 4380.0,
        "weight_deviation_pct": 0.6, "cuboid_fit_pct": 96.4, "top_roughness_mm": 1.7, "edge_deviation_mm": 3.1,
        "flap_angle_deg": 2.2, "seam_gap_mm": 0.8, "tear_length_mm": 168.0, "hole_area_mm2": 2350.0,
        "dark_area_pct": 6.1, "texture_contrast": 0.24, "tape_coverage_pct": 95.2, "barcode_contrast_pct": 78.0,
        "barcode_decode_rate": 0.97, "label_visible_pct": 99.1, "label_skew_deg": 1.5,
        "surface_moisture_pct": 8.3, "surface_temperature_c": 19.4,
    }  # fmt: skip
    features = tuple(
        Feature(
            **{**_as_dict(f), "optional": sensor.dropout > 0, "example": example[f.name]},  # type: ignore[arg-type]
        )
        for sensor in SENSORS.values()
        for f in sensor.features
    )
    return Schema(features, CLASSES, title="scan tunnel")


def _as_dict(feature: Feature) -> dict[str, object]:
    return {name: getattr(feature, name) for name in ("name", "unit", "description", "low", "high")}


SCHEMA = _schema()
_SENSOR_OF = {f.name: sensor for sensor, s in SENSORS.items() for f in s.features}
_NO_DRIFT: Mapping[str, float] = {}


@dataclass(frozen=True)
class Tunnel:
    """A scan tunnel with its knobs.

    `drift` moves a sensor's readings by that many of their typical spreads, by sensor name. `class_mix` replaces the
    shares in `CLASS_MIX` (they are normalised). `faulty_sensor` names a sensor whose readings freeze, with one in
    three lost. `ValueError` names a knob that is not understood.
    """

    seed: int = 0
    site: str = "inland"
    drift: Mapping[str, float] = field(default_factory=lambda: _NO_DRIFT)
    class_mix: Mapping[str, float] = field(default_factory=lambda: CLASS_MIX)
    faulty_sensor: str | None = None

    def __post_init__(self) -> None:
        _one_of("site", self.site, SITES)
        for sensor in self.drift:
            _one_of("drift", sensor, SENSORS)
        for name in self.class_mix:
            _one_of("class_mix", name, CLASS_MIX)
        if self.faulty_sensor is not None:
            _one_of("faulty_sensor", self.faulty_sensor, SENSORS)
        if min(self.class_mix.values(), default=0) < 0 or sum(self.class_mix.values()) <= 0:
            raise ValueError("class_mix: shares must not be negative and must not all be zero")

    def scans(self, rows: int) -> Scans:
        """Return the first `rows` parcels."""
        blocks = [self._block(i) for i in range(-(-rows // BLOCK))]
        if not blocks:
            return Scans(np.empty((0, len(SCHEMA.names)), np.float32), np.empty(0, np.int64))
        return Scans(
            np.concatenate([b.features for b in blocks])[:rows], np.concatenate([b.labels for b in blocks])[:rows]
        )

    def stream(self) -> Iterator[Scans]:
        """Yield parcels without end, `BLOCK` at a time."""
        index = 0
        while True:
            yield self._block(index)
            index += 1

    def _block(self, index: int) -> Scans:
        # One generator for each purpose: what one knob draws must not move what the others see.
        parcel, lost, fault = (np.random.default_rng([self.seed, index, purpose]) for purpose in range(3))
        labels = self._labels(parcel)
        readings = _measure(parcel, labels, SITES[self.site])
        columns = [readings[name] for name in SCHEMA.names]
        features = np.column_stack(columns)
        self._drift(features)
        self._fail(features, fault)
        low, high, _ = SCHEMA.limits
        features = np.clip(features, low, high)
        _drop_out(features, lost)
        return Scans(features.astype(np.float32), labels)

    def _labels(self, rng: np.random.Generator) -> NDArray[np.int64]:
        shares = np.array([self.class_mix.get(defect.name, 0.0) for defect in CLASSES])
        return np.searchsorted(np.cumsum(shares / shares.sum())[:-1], rng.random(BLOCK), side="right")

    def _drift(self, features: Rows) -> None:
        for column, name in enumerate(SCHEMA.names):
            amount = self.drift.get(_SENSOR_OF[name], 0.0)
            if amount:
                spread = np.subtract(*np.percentile(features[:, column], [75, 25])) / 1.35
                features[:, column] += amount * spread

    def _fail(self, features: Rows, rng: np.random.Generator) -> None:
        lost = rng.random(BLOCK) < 1 / 3
        for column, name in enumerate(SCHEMA.names):
            if _SENSOR_OF[name] == self.faulty_sensor:
                features[:, column] = features[0, column]
                if SCHEMA.features[column].optional:
                    features[lost, column] = np.nan


def _one_of(knob: str, value: str, known: Mapping[str, object]) -> None:
    if value not in known:
        raise ValueError(f"{knob}: {value!r} is unknown; expected one of {', '.join(known)}")


def _measure(rng: np.random.Generator, labels: NDArray[np.int64], site: Site) -> dict[str, Column]:
    """Return every sensor's reading of each parcel, before drop-out."""
    n = len(labels)

    def normal(mean: float, spread: float) -> Column:
        return rng.normal(mean, spread, n)

    def skewed(median: float, sigma: float) -> Column:
        return median * np.exp(rng.normal(0.0, sigma, n))

    severity = {c.name: np.where(labels == i, rng.beta(1.7, 1.7, n), 0.0) for i, c in enumerate(CLASSES) if i}
    crush, hole, wet, flap, label = (severity[name] for name in list(CLASS_MIX)[1:])
    # Sound parcels carry harmless marks, and a defect often comes with a mild second one.
    scuff, slack, poor_print, damp = (rng.beta(1.0, 8.0, n) for _ in range(4))
    crush = np.maximum(crush, 0.5 * rng.random(n) * (hole > 0))

    sides = _sides(rng, site)
    length, width, height = sides.T
    volume_l = length * width * height / 1e6
    weight = volume_l * skewed(180.0, 0.55) + 25
    speed = normal(site.belt_speed_mm_s, 120.0)
    blur = np.clip(speed / 1800.0, 0.6, 2.0)

    moisture = skewed(7.0, 0.25) + site.humidity_pct + 40 * wet**1.2 + 9 * damp
    smear = np.clip(label + 0.45 * wet * rng.random(n) + 0.5 * poor_print, 0, 1)
    return {
        "length_mm": length,
        "width_mm": width,
        "height_mm": height * (1 - 0.3 * crush**2),
        "belt_speed_mm_s": speed,
        "weight_g": weight * (1 + 0.02 * wet),
        "weight_deviation_pct": normal(0.0, 1.5) + 4 * wet - 12 * hole**2 * rng.random(n) - 6 * flap * rng.random(n),
        "cuboid_fit_pct": 97.5 - np.abs(normal(0, 1.4)) - 22 * crush - 5 * flap - 5 * scuff,
        "top_roughness_mm": skewed(1.6, 0.35) * blur**0.3 + 18 * crush**1.2 + 5 * flap + 4 * scuff,
        "edge_deviation_mm": skewed(2.8, 0.4) + 30 * crush * (0.4 + 0.6 * rng.random(n)) + 3 * hole + 9 * scuff,
        "flap_angle_deg": np.abs(normal(0, 2.2)) + 75 * flap**1.1 + 14 * slack + 6 * crush * rng.random(n),
        "seam_gap_mm": skewed(0.9, 0.5) + 28 * flap * (0.3 + 0.7 * rng.random(n)) + 5 * slack + 3 * crush,
        "tear_length_mm": skewed(4.0, 0.8) + 230 * hole * (0.3 + 0.7 * rng.random(n)) + 35 * scuff + 20 * crush,
        "hole_area_mm2": skewed(15.0, 0.9) + 6000 * hole**2 * (0.2 + 0.8 * rng.random(n)) + 250 * scuff,
        "dark_area_pct": skewed(4.0, 0.5) + 45 * wet * (0.3 + 0.7 * rng.random(n)) + 10 * scuff + 5 * hole,
        "texture_contrast": site.camera_gain
        * (skewed(0.25, 0.2) + 0.25 * crush + 0.12 * scuff - 0.1 * wet)
        / blur**0.5,
        "tape_coverage_pct": 99 - skewed(2.5, 0.6) - 60 * flap * (0.2 + 0.8 * rng.random(n)) - 25 * slack,
        "barcode_contrast_pct": normal(80, 5) - 55 * smear - 2 * (blur - 1),
        "barcode_decode_rate": 1 - 0.02 * skewed(1.0, 0.6) * blur - 0.9 * smear**1.5,
        "label_visible_pct": 99.5 - skewed(0.8, 0.7) - 55 * label * rng.random(n) - 6 * crush * rng.random(n),
        "label_skew_deg": normal(0, 3) + 25 * label * rng.normal(0, 1, n),
        "surface_moisture_pct": moisture,
        "surface_temperature_c": normal(site.temperature_c, 1.2) - 4.5 * wet - 0.5 * damp,
    }


def _sides(rng: np.random.Generator, site: Site) -> NDArray[np.float64]:
    """Return bounding boxes `[BLOCK, 3]` in mm, longest first on the belt: length, width, height."""
    families = np.array([[240, 170, 40], [300, 220, 110], [400, 300, 210], [600, 400, 390]], dtype=float)
    shares = np.array([0.25, 0.3, 0.3, 0.15 * site.large_cartons])
    family = np.searchsorted(np.cumsum(shares / shares.sum())[:-1], rng.random(BLOCK), side="right")
    sides = families[family] * np.exp(rng.normal(0, 0.12, (BLOCK, 3)))
    sides[:, :2] = np.sort(sides[:, :2], axis=1)[:, ::-1]
    return sides


def _drop_out(features: Rows, rng: np.random.Generator) -> None:
    """Lose readings in place: whole devices at random, and the contrast of labels that do not decode."""
    names = SCHEMA.names
    for sensor in SENSORS.values():
        lost = rng.random(BLOCK) < sensor.dropout
        for feature in sensor.features:
            if sensor.dropout:
                features[lost | (rng.random(BLOCK) < sensor.dropout / 2), names.index(feature.name)] = np.nan
    unreadable = features[:, names.index("barcode_decode_rate")] < 0.15
    for name in ("barcode_contrast_pct", "label_skew_deg"):
        features[unreadable & (rng.random(BLOCK) < 0.8), names.index(name)] = np.nan
