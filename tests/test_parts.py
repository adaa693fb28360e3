"""Parts: round trips, damage of every kind, names, full and read-only disks."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from builders import fill, make_read_only, small_disk
from hypothesis import given
from hypothesis import strategies as st

from hpc_sweep.choices import DONE, FAILED
from hpc_sweep.errors import DiskError, StoreError
from hpc_sweep.plan import Unit
from hpc_sweep.store import Part, PartName, delete_parts, list_parts, write_part
from hpc_sweep.store.parts import is_whole, parse_name, read_part

UNIT = Unit((1, 0), 2, 4, 0, 3)
STORE = "0123456789abcdef"


def make_part() -> Part:
    """Return the part of 2 partitions × 3 candidates × 2 splits."""
    rng = np.random.default_rng(1)
    fits = (2, 3, 2)
    scores = rng.normal(size=fits)
    scores[0, 1] = [np.nan, -np.inf]
    return Part(
        {"score": scores, "test_score": -scores},
        rng.random(fits).astype("float32"),
        rng.random(fits).astype("float32"),
        np.array([[DONE, FAILED, DONE], [DONE, DONE, DONE]], dtype=np.int8),
        np.array([7, 8]),
        np.array([2, 2]),
        {(0, 1): 'split 0: ValueError: "ß" \\ \udcff \x00 😀', (1, 2): "x" * 5000},
    )


def equal(a: Part, b: Part) -> None:
    """Fail unless two parts are the same to the bit."""
    assert set(a.scores) == set(b.scores)
    for metric in a.scores:
        np.testing.assert_array_equal(a.scores[metric], b.scores[metric])
    for name in ("fit_time", "score_time", "status", "n_samples", "n_splits"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other)
    assert a.messages == b.messages


def spoil(folder: Path, name: PartName, content: bytes) -> None:
    (folder / str(name)).write_bytes(content)


def test_round_trip(tmp_path: Path) -> None:
    part = make_part()
    name = write_part(tmp_path, STORE, UNIT, part)
    assert is_whole(tmp_path, name)
    equal(read_part(tmp_path, name), part)
    assert [path.name for path in tmp_path.iterdir()] == [str(name)]


def test_an_empty_evaluation(tmp_path: Path) -> None:
    part = Part(
        {"score": np.empty((1, 1, 0))},
        np.empty((1, 1, 0), "float32"),
        np.empty((1, 1, 0), "float32"),
        np.array([[FAILED]], dtype=np.int8),
        np.array([0]),
        np.array([0]),
        {},
    )
    equal(read_part(tmp_path, write_part(tmp_path, STORE, Unit((0,), 0, 1, 0, 1), part)), part)


def test_the_same_part_again_is_the_same_file_or_another_whole_one(tmp_path: Path) -> None:
    names = {write_part(tmp_path, STORE, UNIT, make_part()) for _ in range(3)}
    assert all(is_whole(tmp_path, name) for name in names)
    assert set(list_parts(tmp_path, STORE)) == names


def test_nothing_is_pickled(tmp_path: Path) -> None:
    name = write_part(tmp_path, STORE, UNIT, make_part())
    with np.load(tmp_path / str(name), allow_pickle=False) as file:
        assert all(file[key].dtype.kind in "fiu" for key in file.files)


# damage


def test_truncated_at_any_length(tmp_path: Path) -> None:
    name = write_part(tmp_path, STORE, UNIT, make_part())
    content = (tmp_path / str(name)).read_bytes()
    for length in [*range(0, len(content), 61), len(content) - 1]:
        spoil(tmp_path, name, content[:length])
        assert not is_whole(tmp_path, name), length
        with pytest.raises(StoreError, match="is missing or damaged"):
            read_part(tmp_path, name)
    spoil(tmp_path, name, content + b"\0")
    assert not is_whole(tmp_path, name)


def test_flipped_anywhere(tmp_path: Path) -> None:
    name = write_part(tmp_path, STORE, UNIT, make_part())
    content = bytearray((tmp_path / str(name)).read_bytes())
    for place in range(0, len(content), 37):
        content[place] ^= 1 << place % 8
        spoil(tmp_path, name, bytes(content))
        assert not is_whole(tmp_path, name), place
        content[place] ^= 1 << place % 8
    spoil(tmp_path, name, bytes(content))
    assert is_whole(tmp_path, name)


def test_zeroed_by_a_power_cut(tmp_path: Path) -> None:
    name = write_part(tmp_path, STORE, UNIT, make_part())
    spoil(tmp_path, name, bytes(name.size))
    assert not is_whole(tmp_path, name)


def test_missing(tmp_path: Path) -> None:
    name = write_part(tmp_path, STORE, UNIT, make_part())
    delete_parts(tmp_path, [name])
    assert not is_whole(tmp_path, name)
    with pytest.raises(StoreError, match=str(name)):
        read_part(tmp_path, name)
    delete_parts(tmp_path, [name])


def test_a_part_that_shows_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_part()
    name = write_part(tmp_path, STORE, UNIT, part)
    content = (tmp_path / str(name)).read_bytes()
    spoil(tmp_path, name, content[:10])
    waits = []

    def appear(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            spoil(tmp_path, name, content)

    monkeypatch.setattr("hpc_sweep.store.parts.time.sleep", appear)
    equal(read_part(tmp_path, name, wait_s=60), part)
    assert len(waits) == 3


# the folder


def test_foreign_files_are_passed_over(tmp_path: Path) -> None:
    name = write_part(tmp_path, STORE, UNIT, make_part())
    (tmp_path / "folder").mkdir()
    for text in ("", "README", ".x.tmp", f"{name}.old", f".{name}.12345678.tmp", "0_0_0-1.npz"):
        if text:
            (tmp_path / text).write_bytes(b"x")
    assert list_parts(tmp_path, STORE) == [name]


def test_parts_of_another_store_are_passed_over(tmp_path: Path) -> None:
    mine = write_part(tmp_path, STORE, UNIT, make_part())
    other = write_part(tmp_path, "fedcba9876543210", UNIT, make_part())
    assert list_parts(tmp_path, STORE) == [mine]
    assert list_parts(tmp_path, other.store) == [other]


def test_no_folder_is_no_parts(tmp_path: Path) -> None:
    assert list_parts(tmp_path / "none", STORE) == []


# names

NUMBERS = st.integers(0, 10**7)
NAMES = st.builds(
    PartName,
    st.text("0123456789abcdef", min_size=1, max_size=16),
    st.builds(
        Unit, st.lists(NUMBERS, min_size=1, max_size=6).map(tuple), *[NUMBERS for _ in range(4)]
    ),
    st.integers(0, 10**12),
    st.text("0123456789abcdef", min_size=8, max_size=8),
)


@given(NAMES)
def test_a_name_says_what_it_was_made_of(name: PartName) -> None:
    assert parse_name(str(name)) == name


@given(NAMES, st.data())
def test_a_damaged_name_is_none_or_another(name: PartName, data: st.DataObject) -> None:
    text = str(name)
    place = data.draw(st.integers(0, len(text)))
    alphabet = st.text(string.printable + "é٣", max_size=2)
    changed = text[:place] + data.draw(alphabet) + text[place + data.draw(st.integers(0, 2)) :]
    found = parse_name(changed)
    assert found is None or parse_name(str(found)) == found
    assert found != name or changed == text or "0" in changed  # leading zeros


@given(st.text(max_size=40))
def test_any_other_text_is_no_name(text: str) -> None:
    assert parse_name(text) is None


# disks


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        fill(disk, but=4096)
        with pytest.raises(DiskError, match="No space left"):
            write_part(disk, STORE, UNIT, make_part())
        assert [path.name for path in disk.iterdir()] == ["filling"]
        assert list_parts(disk, STORE) == []


def test_a_read_only_disk_can_still_be_read(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        name = write_part(disk, STORE, UNIT, make_part())
        make_read_only(disk)
        with pytest.raises(DiskError, match="Read-only"):
            write_part(disk, STORE, Unit((0, 0), 0, 2, 0, 3), make_part())
        equal(read_part(disk, name), make_part())
        assert list_parts(disk, STORE) == [name]
