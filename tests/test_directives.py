"""Directives of job scripts: read, skipped, replaced and added by option."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_sweep import placeholders
from hpc_sweep.directives import PREFIX, Changes, Size, option_of, rewritten, split
from hpc_sweep.errors import SpecError

SIZE = Size(cores=48, memory_bytes=190_000_000_000, nodes=2, scratch_bytes=100_000_000_000)
SLURM = ["-J sweep", "-e x/-A-mem.err", "-p compute", "-A p42", "-n 1", "--mem=8G", "-t 02:00:00"]
PBS = ["-N sweep", "-q normal", "-A p42", "-l select=1", "-l walltime=02:00:00", "-o x/-A/"]


def lines(kind: str, changes: Changes) -> list[str]:
    """Return the texts of the directives that are made of the usual ones."""
    prefix = PREFIX[kind]
    usual = [f"{prefix} {text}" for text in {"slurm": SLURM, "pbs": PBS}[kind]]
    made = rewritten(kind, usual, changes, SIZE)
    assert all(line.startswith(f"{prefix} ") for line in made)
    return [line.removeprefix(f"{prefix} ") for line in made]


@pytest.mark.parametrize(
    ("kind", "text", "options"),
    [
        ("slurm", "-p compute", ["--partition"]),
        ("slurm", "-pcompute", ["--partition"]),
        ("slurm", "--partition=compute", ["--partition"]),
        ("slurm", "--partition compute", ["--partition"]),
        ("slurm", "-N 2 -n4 --mem-per-cpu=1G", ["--nodes", "--ntasks-per-node", "--mem"]),
        ("slurm", '--comment="a -p b" -x node1', ["--comment", "--exclude"]),
        ("slurm", "--comment='never ends", ["--comment"]),
        ("pbs", "-l select=2:ncpus=4:mem=8gb", ["-l select"]),
        ("pbs", "-lselect=2:ncpus=4,walltime=1:00:00", ["-l select", "-l walltime"]),
        ("pbs", "-l ncpus=4,mem=8gb,wd", ["-l ncpus", "-l mem", "-l wd"]),
        ("pbs", "-l storage=gdata/a+scratch/b -q normal", ["-l storage", "-q"]),
        ("pbs", '-l tags="a,b=c",wd', ["-l tags", "-l wd"]),
        ("pbs", "-W depend=afterok:1,umask=022", ["-W depend", "-W umask"]),
        ("pbs", "-l nodes=1:ppn=4", ["-l select"]),
        ("pbs", "-P ab12", ["-P"]),
    ],
)
def test_options(kind: str, text: str, options: list[str]) -> None:
    assert [option for option, _ in split(kind, text)] == options


def test_skipped_by_option_never_by_text() -> None:
    """dask-jobqueue's own skipping of ``-A`` takes the log away whose path has it."""
    made = lines("slurm", Changes(skip=["-A", "--mem"]))
    assert "-e x/-A-mem.err" in made
    assert not [text for text in made if text.startswith(("-A", "--account", "--mem"))]
    made = lines("pbs", Changes(skip=["-A", "-l select"]))
    assert made == ["-N sweep", "-q normal", "-l walltime=02:00:00", "-o x/-A/"]


def test_skipping_as_dask_jobqueue_writes_it() -> None:
    assert option_of("slurm", "mem=") == "--mem"
    assert option_of("slurm", "--mem") == "--mem"
    assert option_of("pbs", "select") == "-l select"


def test_a_directive_replaces_the_same_option() -> None:
    changes = Changes(directives=["--partition=long", "-N 3 --time=1:00:00", "--qos=a", "--qos=b"])
    made = lines("slurm", changes)
    for text in ("-p compute", "--nodes=2", "-t 02:00:00"):
        assert text not in made
    assert made[-5:] == ["--partition=long", "-N 3", "--time=1:00:00", "--qos=a", "--qos=b"]
    made = lines("pbs", Changes(directives=["-l walltime=1:00:00,place=excl"]))
    assert "-l walltime=02:00:00" not in made
    assert made[-2:] == ["-l walltime=1:00:00", "-l place=excl"]


def test_resources_as_the_site_writes_them() -> None:
    resources = ["-l ncpus={all_cores}", "-l mem={all_memory_mib}MB,jobfs={scratch_gb}GB"]
    made = lines("pbs", Changes(resources=resources))
    assert not [text for text in made if "select" in text]
    assert made[-3:] == ["-l ncpus=96", "-l mem=362397MB", "-l jobfs=100GB"]
    scattered = ["#PBS -l place=scatter", "#PBS -q normal"]
    assert rewritten("pbs", scattered, Changes(resources=resources[:1]), SIZE) == [
        "#PBS -q normal",
        "#PBS -l ncpus=96",
    ]
    assert "#PBS -l place=scatter" in rewritten("pbs", scattered, Changes(), SIZE)
    assert lines("slurm", Changes(resources=[]))[-1] == "-t 02:00:00"


def test_usual_resources_are_whole_units_rounded_up() -> None:
    usual = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=48", "--mem=181199M"]
    assert lines("slurm", Changes())[-4:] == usual
    assert lines("pbs", Changes())[-1] == "-l select=2:ncpus=48:mem=181199mb"


@pytest.mark.parametrize(
    ("kind", "option", "text"),
    [
        ("slurm", "--wckey", "--wckey=p42"),
        ("pbs", "-P", "-P p42"),
        ("pbs", "-W group_list", "-W group_list=p42"),
    ],
)
def test_another_option_for_the_account(kind: str, option: str, text: str) -> None:
    made = lines(kind, Changes(account_option=option))
    assert text in made
    assert "-A p42" not in made


@pytest.mark.parametrize("line", ["#SBATCH -p a\u2028b", "rm -rf x", "#SBATCH", "#PBS -q a"])
def test_what_is_no_directive_is_refused(line: str) -> None:
    with pytest.raises(SpecError, match="must be one #SBATCH line"):
        rewritten("slurm", ["#SBATCH -J x", line], Changes(), SIZE)


@given(text=st.text(st.sampled_from(string.printable + "é\u2028"), min_size=1))
@pytest.mark.parametrize("kind", PREFIX)
def test_no_text_adds_a_line(kind: str, text: str) -> None:
    """Whatever stands in a directive is on lines that the shell passes over, or refused."""
    changes = Changes(directives=[text.replace("{", "{{").replace("}", "}}")])
    try:
        made = rewritten(kind, [], changes, SIZE)
    except SpecError:
        return
    script = "\n".join(made)
    assert all(line.startswith(f"{PREFIX[kind]} ") for line in script.splitlines())
    kept = script.replace(PREFIX[kind], "").replace("-l", "").replace("-W", "").split()
    assert set("".join(text.split())) - set(",-lW") <= set("".join(kept))


@given(text=st.text())
def test_placeholders(text: str) -> None:
    """What has no braces stays; doubled braces become single ones."""
    plain = text.replace("{", "").replace("}", "")
    assert placeholders.expanded(plain, {}) == plain
    assert placeholders.expanded(f"{{{{{plain}}}}}", {}) == f"{{{plain}}}"
    assert placeholders.expanded(f"{plain}{{cores}}", {"cores": 3}) == f"{plain}3"
    mounted = placeholders.with_mounts("{mounts}{cores}{{x}}", "a+b")
    assert mounted == "a+b{cores}{{x}}"
    assert placeholders.expanded(mounted, {"cores": 3}) == "a+b3{x}"
