"""Make the demo data of the quickstart: a small, made-up region with real behaviour.

Rain falls on a grid of pixels, fills a canopy and two soil layers, and makes leaves grow: five
land-surface states. A radar sees them: the target is the slope of backscatter against incidence
angle, the quantity that ASCAT scatterometer data give and that shows vegetation. What links states
and slope changes from pixel to pixel: nearly linear on bare soil, curved and saturating under a
canopy. So one question is left to ask: which model is best where?

Everything is synthetic; nothing is downloaded. Needs numpy, xarray and zarr.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.errors import ZarrUserWarning

Array = npt.NDArray[np.float64]

GENERATOR = "hpc_sweep examples/quickstart/make_data.py"  # by this a store is known as ours
VERSION = 1  # raise it when the numbers change
START = np.datetime64("2022-03-15")
SPIN_UP_DAYS = 150  # until the root zone has forgotten how it started
SURFACE_MM = 60.0  # depth of the surface layer
ROOT_MM = 600.0  # depth of the root zone below it
NOISE_DB_PER_DEGREE = 0.006  # about that of a slope from some days of overpasses
CHUNK = 4  # pixels along each side of a chunk


GLOBAL_ATTRIBUTES = {
    "Conventions": "CF-1.11",
    "title": "Synthetic land-surface states and radar backscatter slope",
    "source": "a bucket model driven by random rain; not a measurement",
}
ATTRIBUTES = {
    "latitude": {
        "units": "degrees_north",
        "long_name": "latitude",
        "standard_name": "latitude",
    },
    "longitude": {
        "units": "degrees_east",
        "long_name": "longitude",
        "standard_name": "longitude",
    },
    "time": {
        "long_name": "day",
        "standard_name": "time",
    },
    "surface_soil_moisture": {
        "units": "m3 m-3",
        "long_name": "soil moisture of the upper 6 cm",
        "standard_name": "volume_fraction_of_condensed_water_in_soil",
    },
    "root_zone_soil_moisture": {
        "units": "m3 m-3",
        "long_name": "soil moisture from 6 to 96 cm",
        "standard_name": "volume_fraction_of_condensed_water_in_soil",
    },
    "soil_temperature": {
        "units": "K",
        "long_name": "temperature of the upper soil",
        "standard_name": "soil_temperature",
    },
    "leaf_area_index": {
        "units": "1",
        "long_name": "leaf area index",
        "standard_name": "leaf_area_index",
    },
    "canopy_water": {
        "units": "kg m-2",
        "long_name": "rain held by the canopy",
        "standard_name": "canopy_water_amount",
    },
    "season_sin": {
        "units": "1",
        "long_name": "sine of the day of the year",
    },
    "season_cos": {
        "units": "1",
        "long_name": "cosine of the day of the year",
    },
    "vegetation_cover": {
        "units": "1",
        "long_name": "fraction of the pixel under vegetation",
        "standard_name": "vegetation_area_fraction",
    },
    "slope": {
        "units": "dB degree-1",
        "long_name": "slope of backscatter against incidence angle at 40 degrees",
    },
}


class UserError(Exception):
    """A mistake that the user can put right; its text is the whole message."""


@dataclass(frozen=True)
class Land:
    """What stays the same in time; all arrays have the shape (size, size)."""

    latitude: Array
    longitude: Array
    is_land: npt.NDArray[np.bool_]
    cover: Array  # fraction of the pixel under vegetation
    leaf_area_max: Array  # at the height of the season
    peak_day: Array  # day of the year with the most leaves
    wilting: Array  # soil moisture without any that plants can use, m3 m-3
    field_capacity: Array  # soil moisture above which water drains, m3 m-3
    porosity: Array  # soil moisture when saturated, m3 m-3
    dry_soil_db: Array  # backscatter of dry bare soil at 40 degrees
    soil_slope: Array  # slope of dry bare soil, dB degree-1
    stone_echo: Array  # what stones send back when the soil above is dry, as a power ratio


@dataclass(frozen=True)
class Water:
    """The water of one day; all arrays have the shape (size, size)."""

    surface: Array  # m3 m-3
    root: Array  # m3 m-3
    canopy: Array  # kg m-2


@dataclass(frozen=True)
class States:
    """What changes in time; all arrays have the shape (days, size, size)."""

    surface: Array  # m3 m-3
    root: Array  # m3 m-3
    temperature: Array  # K
    leaf_area: Array  # m2 m-2
    interception: Array  # kg m-2


def smooth_fields(rng: np.random.Generator, count: int, size: int, waves: float) -> Array:
    """Draw random fields that vary smoothly in space.

    Parameters
    ----------
    rng : numpy.random.Generator
    count, size : int
        Number of fields, and of pixels along each side.
    waves : float
        Typical number of waves across the grid.

    Returns
    -------
    ndarray of shape (count, size, size)
        About normal, with mean 0 and standard deviation 1 over many fields.
    """
    modes = 12
    axis = (np.arange(size) + 0.5) / size
    wave_numbers = 2 * np.pi * waves * rng.standard_normal((2, modes))
    phase = wave_numbers[0, :, None, None] * axis[:, None] + wave_numbers[1, :, None, None] * axis
    # cos(phase + shift) with a shift and a weight per field, as two matrix products
    weights = rng.standard_normal((2, count, modes)) / np.sqrt(modes)
    fields: Array = np.tensordot(weights[0], np.cos(phase), axes=1)
    fields += np.tensordot(weights[1], np.sin(phase), axes=1)
    return fields


def make_land(rng: np.random.Generator, size: int) -> Land:
    """Draw soils, vegetation and a coast for a grid of `size` × `size` pixels over 3° × 3°."""
    axis = (np.arange(size) + 0.5) / size
    north, east = axis[:, None], axis[None, :]
    woods, clay, farming, stones = smooth_fields(rng, 4, size, waves=0.8)
    cover = 0.05 + 0.9 / (1 + np.exp(-3.0 * woods))
    clay = 0.5 + 0.5 * np.tanh(0.8 * clay)
    coast = 0.13 + 0.07 * np.sin(5.0 * north + 1.0)
    lake = np.hypot(north - 0.62, east - 0.71) < 0.07
    return Land(
        latitude=43.0 + 3.0 * axis,
        longitude=-1.5 + 3.0 * axis,
        is_land=(east > coast) & ~lake,
        cover=cover,
        leaf_area_max=5.5 * cover,
        peak_day=175.0 + 15.0 * np.tanh(farming),
        wilting=0.06 + 0.10 * clay,
        field_capacity=0.22 + 0.14 * clay,
        porosity=0.40 + 0.10 * clay,
        dry_soil_db=-17.0 + 1.0 * np.tanh(stones),
        soil_slope=-0.15 - 0.02 * np.tanh(stones),
        stone_echo=0.7 / (1 + np.exp(-4.0 * stones)),
    )


def make_rain(rng: np.random.Generator, day_of_year: Array, size: int) -> Array:
    """Draw daily rain in mm: fronts that come in runs, wetter in winter, patchy in space."""
    days = len(day_of_year)
    weather = np.zeros(days)
    for day in range(1, days):
        weather[day] = 0.6 * weather[day - 1] + 0.8 * rng.standard_normal()
    wetness = weather - 0.55 + 0.25 * np.cos(2 * np.pi * (day_of_year - 20) / 365.25)
    intensity = wetness[:, None, None] + 0.6 * smooth_fields(rng, days, size, waves=1.0)
    amount: Array = 9.0 * np.clip(intensity, 0.0, None) ** 1.3
    return amount


def move_water(
    land: Land, store: Water, leaf_area: Array, rain: Array, demand: float
) -> tuple[Water, Array]:
    """Move one day's water.

    Parameters
    ----------
    land : Land
    store : Water
        At the end of the day before.
    leaf_area, rain : ndarray of shape (size, size)
        m2 m-2, and mm of this day.
    demand : float
        Evaporation from a wet surface, mm.

    Returns
    -------
    Water
        At the end of this day.
    stress : ndarray of shape (size, size)
        From 0, plants wilt, to 1, they have all the water that they want.
    """
    capacity = land.field_capacity
    stress = np.clip((store.root - land.wilting) / (capacity - land.wilting), 0.0, 1.0)
    evaporation = demand * (1 - 0.7 * land.cover) * np.clip(store.surface / capacity, 0.0, 1.0) ** 2
    transpiration = demand * land.cover * stress
    seepage = 0.5 * np.clip(store.surface - capacity, 0.0, None) * SURFACE_MM
    drainage = 0.05 * np.clip(store.root - capacity, 0.0, None) * ROOT_MM
    rise = 4.0 * (store.root - store.surface)  # by capillary forces, mm

    canopy = 0.35 * store.canopy + land.cover * rain  # the rest dried since yesterday
    overflow = np.clip(canopy - 0.25 * leaf_area, 0.0, None)
    gain = (1 - land.cover) * rain + overflow + rise - seepage - evaporation - 0.2 * transpiration
    surface = store.surface + gain / SURFACE_MM
    full = 0.95 * land.porosity
    deep = 0.6 * np.clip(surface - full, 0.0, None) * SURFACE_MM  # through cracks; 0.4 runs off
    root = store.root + (deep + seepage - rise - drainage - 0.8 * transpiration) / ROOT_MM
    water = Water(
        surface=np.clip(surface, 0.25 * land.wilting, full),
        root=np.clip(root, 0.8 * land.wilting, full),
        canopy=canopy - overflow,
    )
    return water, stress


def run_bucket_model(
    rng: np.random.Generator, land: Land, rain: Array, day_of_year: Array
) -> States:
    """Step water, leaves and soil temperature through all days of `rain` (days, size, size)."""
    summer = 0.5 + 0.5 * np.cos(2 * np.pi * (day_of_year - 196) / 365.25)
    growth = 0.5 + 0.5 * np.cos(2 * np.pi * (day_of_year[:, None, None] - land.peak_day) / 365.25)
    moist = 0.8 * land.field_capacity
    water = Water(surface=moist, root=moist, canopy=np.zeros_like(moist))
    leaf_area = 0.4 * land.leaf_area_max
    climate = 279.0 - 0.8 * (land.latitude[:, None] - 44.5)
    temperature = climate + np.zeros_like(moist)
    weather = 0.0
    states = np.empty((5, *rain.shape))
    for day, season in enumerate(summer):
        water, stress = move_water(land, water, leaf_area, rain[day], 0.8 + 4.2 * season)
        wanted = land.leaf_area_max * (0.15 + 0.85 * growth[day]) * (0.4 + 0.6 * stress)
        leaf_area = leaf_area + (wanted - leaf_area) / 12.0
        weather = 0.8 * weather + 2.2 * rng.standard_normal()
        air = climate + weather + season * (18.0 - 3.0 * water.surface / land.field_capacity)
        temperature = temperature + 0.35 * (air - temperature)
        states[:, day] = water.surface, water.root, temperature, leaf_area, water.canopy
    return States(*states)


def backscatter_slope(land: Land, states: States) -> Array:
    """Compute the slope of backscatter at 40° incidence, in dB degree-1.

    The water cloud model of Attema and Ulaby (1978): vegetation is a cloud of droplets that
    scatters by itself and hides the soil below, which is seen through it twice. Wet soil is bright
    and falls off steeply with the angle, a dense canopy hardly does; in between the two compete,
    and that is not linear. Nor is stony soil: when very dry it lets the stones below shine through.
    The slope is the difference between 45° and 35°.
    """
    wetness = (states.root - land.wilting) / (land.field_capacity - land.wilting)
    turgor = 0.6 + 0.4 * np.clip(wetness, 0.0, 1.0)
    vegetation_water = 0.45 * states.leaf_area * turgor + 1.2 * states.interception  # kg m-2
    below = land.stone_echo * np.exp(-states.surface / 0.07)
    backscatter_db = []
    for angle in (35.0, 45.0):
        cosine = np.cos(np.deg2rad(angle))
        seen = np.exp(-2 * 0.55 * vegetation_water / cosine)
        soil_slope = land.soil_slope - 0.16 * (states.surface - 0.2)
        soil_db = land.dry_soil_db + 28.0 * states.surface + soil_slope * (angle - 40.0)
        soil = 10 ** (soil_db / 10) + below * cosine
        canopy = 0.10 * cosine * (1 - seen)
        backscatter_db.append(10 * np.log10(canopy + seen * soil))
    slope: Array = (backscatter_db[1] - backscatter_db[0]) / 10.0
    return slope


def overpasses(rng: np.random.Generator, days: int, size: int) -> npt.NDArray[np.bool_]:
    """Tell which pixels the satellite sees on which day: moving swaths, less some lost data."""
    axis = np.arange(size) / size
    across = (axis[None, :] - 0.25 * axis[:, None]) / 2.5
    track = 0.387 * np.arange(days)[:, None, None]
    in_swath = (across + track) % 1.0 < 0.75
    kept: npt.NDArray[np.bool_] = in_swath & (rng.random((days, size, size)) < 0.95)
    return kept


def make_dataset(size: int, days: int, seed: int) -> xr.Dataset:
    """Make the data set.

    Parameters
    ----------
    size : int
        Pixels along each side.
    days : int
        Days, from 15 March 2022 on.
    seed : int
        Seed of everything random.

    Returns
    -------
    xarray.Dataset
        Five states and ``slope`` with the dimensions (latitude, longitude, time), float32, NaN over
        sea and lake, ``slope`` also NaN between overpasses; ``season_sin`` and ``season_cos`` with
        the dimension time only; ``vegetation_cover`` without time.
    """
    rng = np.random.default_rng(seed)
    land = make_land(rng, size)
    time = START + np.arange(-SPIN_UP_DAYS, days)
    day_of_year = (time - time.astype("datetime64[Y]")).astype(np.float64) + 1
    rain = make_rain(rng, day_of_year, size)
    states = run_bucket_model(rng, land, rain, day_of_year)
    slope = backscatter_slope(land, states)
    slope += NOISE_DB_PER_DEGREE * rng.standard_normal(slope.shape)
    slope[~overpasses(rng, len(time), size)] = np.nan
    year = 2 * np.pi * day_of_year / 365.25
    series = {
        "surface_soil_moisture": states.surface,
        "root_zone_soil_moisture": states.root,
        "soil_temperature": states.temperature,
        "leaf_area_index": states.leaf_area,
        "canopy_water": states.interception,
        "season_sin": np.sin(year),
        "season_cos": np.cos(year),
        "slope": slope,
    }
    variables = {name: series_variable(values, land) for name, values in series.items()}
    variables["vegetation_cover"] = xr.Variable(
        ("latitude", "longitude"), np.where(land.is_land, land.cover, np.nan).astype(np.float32)
    )
    coords = {
        "latitude": land.latitude,
        "longitude": land.longitude,
        "time": time[SPIN_UP_DAYS:].astype("datetime64[ns]"),
    }
    dataset = xr.Dataset(variables, coords, GLOBAL_ATTRIBUTES | made_with(size, days, seed))
    for name, attributes in ATTRIBUTES.items():
        dataset[name].attrs.update(attributes)
    return dataset


def series_variable(values: Array, land: Land) -> xr.Variable:
    """Take the wanted days of ``(days,)`` or ``(days, size, size)``, time last, without the sea."""
    values = values[SPIN_UP_DAYS:]
    if values.ndim == 1:
        return xr.Variable("time", values.astype(np.float32))
    values = np.moveaxis(np.where(land.is_land, values, np.nan), 0, -1)
    return xr.Variable(("latitude", "longitude", "time"), values.astype(np.float32))


def made_with(size: int, days: int, seed: int) -> dict[str, str | int]:
    """Return the attributes that tell what made a store, and with which values."""
    return {
        "generator": GENERATOR,
        "generator_version": VERSION,
        "size": size,
        "days": days,
        "seed": seed,
    }


def is_there(out: Path, wanted: Mapping[str, str | int]) -> bool:
    """Tell whether `out` exists with the `wanted` attributes, and so is complete.

    Raises
    ------
    UserError
        If something else is there, which is never overwritten, or there is no folder for it.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder: make it first, or choose another name")
    if not os.path.lexists(out):
        return False
    try:
        found = zarr.open_group(out, mode="r").attrs.asdict()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out} exists and is not a zarr group: choose another name") from error
    if found.get("generator") != GENERATOR:
        raise UserError(f"{out} exists and was not made by this script: choose another name")
    differing = [
        f"{name} {found.get(name)} instead of {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing:
        raise UserError(
            f"{out} exists with {', '.join(differing)}: remove it or choose another name"
        )
    return True


def write_store(dataset: xr.Dataset, out: Path) -> None:
    """Write a zarr store, which appears under its name only when it is complete."""
    encoding: dict[str, dict[str, object]] = {
        name: {"_FillValue": None} for name in ("latitude", "longitude", "season_sin", "season_cos")
    }
    for name, variable in dataset.data_vars.items():
        if variable.ndim > 1:
            chunk = {"latitude": CHUNK, "longitude": CHUNK}
            shape = tuple(min(chunk.get(str(d), n), n) for d, n in variable.sizes.items())
            encoding[str(name)] = {"chunks": shape}
    # A folder within the temporary one, since that one is private to the user (mode 700).
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.tmp-", dir=out.parent) as folder:
        unfinished = Path(folder) / out.name
        dataset.to_zarr(unfinished, zarr_format=3, consolidated=False, encoding=encoding)
        with warnings.catch_warnings():  # of a format still to be specified; xarray wants it anyway
            warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
            zarr.consolidate_metadata(unfinished)
        unfinished.rename(out)


def at_least(lowest: int) -> Callable[[str], int]:
    """Make an argparse type: an integer that is not below `lowest`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
        return value

    return integer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return 0, or 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(description="Make the demo data of the quickstart.")
    parser.add_argument("out", metavar="OUT.zarr", type=Path, help="store to make")
    parser.add_argument("--size", type=at_least(2), default=12, help="pixels along each side [12]")
    parser.add_argument("--days", type=at_least(30), default=200, help="number of days [200]")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of everything random [0]")
    given = parser.parse_args(argv)
    try:
        if is_there(given.out, made_with(given.size, given.days, given.seed)):
            print(f"{given.out}: made before, nothing to do")
            return 0
        dataset = make_dataset(given.size, given.days, given.seed)
        write_store(dataset, given.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    empty = int(dataset["vegetation_cover"].isnull().sum())
    print(f"{given.out}: {given.size} × {given.size} pixels ({empty} empty), {given.days} days")
    return 0


if __name__ == "__main__":
    sys.exit(main())
