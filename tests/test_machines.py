"""Machine profiles: found, checked, laid under a spec, and what they make of scripts."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Spec

from hpc_sweep import machines
from hpc_sweep.cli import main
from hpc_sweep.clusters import make_cluster
from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.errors import SpecError
from hpc_sweep.spec import ClusterSpec, load_machine, load_spec
from hpc_sweep.submission import driver_spec

SHIPPED = ["generic-pbs", "generic-slurm", "pbs-project-storage", "whole-node"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty folder of the user's own profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "hpc-sweep" / "machines"
    folder.mkdir(parents=True)
    return folder


def with_machine(spec: Spec, name: Any, **cluster: Any) -> Spec:
    return {**spec, "cluster": {"machine": name, **cluster}}


def test_the_spec_wins_key_by_key(own: Path, spec: Spec) -> None:
    (own / "here.yaml").write_text(
        "description: a test\nkind: slurm\nqueue: theirs\naccount: theirs\nnodes: 4\n"
        "workers_per_node: 8\nmemory: 2GB\nwalltime: 01:00:00\ndirectives: [--qos=theirs]\n"
        "driver: {memory: 1GB, queue: theirs, walltime: '10:00:00'}\n"
    )
    cluster = load_spec(
        with_machine(spec, "here", queue="mine", workers=5, account=None, driver={"queue": "mine"}),
        ["cluster.directives=[--qos=mine]"],
    ).cluster
    assert (cluster.kind, cluster.queue, cluster.account) == ("slurm", "mine", None)
    assert (cluster.workers, cluster.nodes, cluster.workers_per_node) == (5, None, 8)
    assert cluster.directives == ["--qos=mine"]
    assert cluster.memory == 2_000_000_000
    assert cluster.driver.queue == "mine"
    assert cluster.driver.walltime == "10:00:00"


def test_a_machine_named_later(own: Path, spec: Spec) -> None:
    """``--set`` names it; a spec that was loaded already keeps what it said."""
    (own / "here.yaml").write_text("description: a test\nkind: pbs\nqueue: theirs\n")
    spec["cluster"] = {"workers": 3}
    once = load_spec(spec, ["cluster.machine=here"])
    assert (once.cluster.kind, once.cluster.queue, once.cluster.workers) == ("pbs", "theirs", 3)
    again = load_spec(load_spec(spec), ["cluster.machine=here"])
    assert again.cluster == once.cluster
    assert load_spec(once) == once


def test_a_machine_that_a_setting_names_is_no_laptop(own: Path, spec: Spec) -> None:
    (own / "ours.yaml").write_text("description: mine\nkind: slurm\nmemory: 3GB\n")
    spec["cluster"] = {"kind": "local", "workers": 7}
    cluster = load_spec(spec, ["cluster.machine=ours"]).cluster
    assert (cluster.kind, cluster.workers, cluster.memory) == ("slurm", 7, 3_000_000_000)
    for settings in (["cluster.kind=local", "cluster.machine=ours"], ["cluster.machine=null"]):
        assert load_spec(spec, settings).cluster.kind == "local"


def test_local_needs_no_machine(own: Path, spec: Spec) -> None:
    """The same spec runs on a laptop that knows nothing of the machine."""
    for name in ("whole-node", "absent"):
        cluster = load_spec(with_machine(spec, name, kind="local")).cluster
        assert (cluster.kind, cluster.workers_per_node, cluster.nodes) == ("local", None, None)
    with pytest.raises(SpecError, match="'pbs' is not what machine 'whole-node' has, 'slurm'"):
        load_spec(with_machine(spec, "whole-node", kind="pbs"))


def test_the_drivers_job_needs_no_profile(own: Path, spec: Spec) -> None:
    """The compute node may not see the home of the user who submitted."""
    file = own / "here.yaml"
    file.write_text("description: a test\nkind: slurm\nqueue: theirs\nmemory: 1GB\n")
    loaded = load_spec(with_machine(spec, "here"))
    text = driver_spec(loaded).model_dump_json()
    file.unlink()
    there = load_spec(json.loads(text))
    assert (there.cluster.kind, there.cluster.queue) == ("slurm", "theirs")


def test_own_profiles_hide_shipped_ones(own: Path) -> None:
    assert sorted(machines.profiles()) == SHIPPED
    (own / "whole-node.yaml").write_text("description: mine\nkind: local\n")
    (own / ".hidden.yaml").write_text("")
    (own / "notes.txt").write_text("")
    assert sorted(machines.profiles()) == SHIPPED
    assert load_machine("whole-node")[0]["description"] == "mine"


def test_a_relative_xdg_folder_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    assert machines.own_folder() == Path("~/.config/hpc-sweep/machines").expanduser()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_good(name: str, own: Path, spec: Spec) -> None:
    profile, _ = load_machine(name)
    cluster = load_spec(with_machine(spec, name)).cluster
    assert cluster.kind == profile["kind"]
    assert cluster.workers_per_node == profile["workers_per_node"]


@pytest.mark.parametrize("name", ["../here", "a/b", "/etc/passwd", "", ".", "wholenode"])
def test_unknown(own: Path, spec: Spec, name: str) -> None:
    (own.parent / "here.yaml").write_text("description: not in the folder\n")
    with pytest.raises(SpecError) as caught:
        load_spec(with_machine({**spec, "search": {"cv": 0}}, name))
    paths = [fault.path for fault in caught.value.faults]
    if name:
        assert paths == ["cluster.machine", "search.cv"]
        message = str(caught.value)
        assert f"{name!r} is no machine" in message
        assert str(own) in message
        assert "generic-slurm" in message
    assert ("did you mean 'whole-node'" in str(caught.value)) == (name == "wholenode")


def test_malformed(own: Path, spec: Spec) -> None:
    """All faults at once, by dotted path, and the file is named."""
    (own / "bad.yaml").write_text(
        "kind: slrum\nqueu: a\nmachine: other\nqueue: a b\nlauncher: ['{core}']\n"
        "charge: {unit: SU}\nscratch: {folder: $(touch x)}\nskip: [mem]\n"
        "mounts: {rules: {'/g/([^/]+': 'x', '/h': '\\1'}}\ndriver: {queue: '-x'}\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(with_machine(spec, "bad"))
    message = str(caught.value)
    assert f"machine profile {own / 'bad.yaml'} has" in message
    for words in (
        "machine: a profile cannot name another",
        "description: is missing",
        "queu: unknown key",
        "did you mean 'queue'",
        "queue: 'a b': goes into job scripts",
        "launcher.0: '{core}': {core} is no placeholder; known are {nodes}, {cores}",
        "did you mean 'cores'",
        "scratch.folder: '$(touch x)'",
        "skip.0: 'mem': write an option",
        "mounts.rules: ",
        "driver.queue: '-x'",
    ):
        assert words in message, message
    (own / "bad.yaml").write_text("description: x\nkind: slrum\ncharge: {}\n")
    with pytest.raises(SpecError, match=r"(?s)kind: 'slrum' is none of.*charge: give either"):
        load_spec(with_machine(spec, "bad"))


@pytest.mark.parametrize(
    ("text", "words"), [("- a\n", "must be a mapping"), ("a: [", "is not YAML"), ("", "mapping")]
)
def test_no_mapping(own: Path, spec: Spec, text: str, words: str) -> None:
    (own / "bad.yaml").write_text(text)
    with pytest.raises(SpecError, match=f"machine profile .*bad.yaml(?s:.*){words}"):
        load_spec(with_machine(spec, "bad"))


def test_mounts_by_rules() -> None:
    rules = {"/g/data/([^/]+)": r"gdata/\1", "/scratch/([^/]+)": r"scratch/\1"}
    paths = ["/g/data/ab12/x.zarr", "/scratch/ab12/me", "/g/data/ab12", "/home/me", "/g/data/cd3"]
    assert machines.mount_names(paths, rules) == ["gdata/ab12", "scratch/ab12", "gdata/cd3"]


def test_mounts_without_rules_are_the_uppermost_paths() -> None:
    paths = ["/a/b", "/a", "/c/d", "/c/de", "/c/d/e"]
    assert machines.mount_names(paths, {}) == ["/a", "/c/d", "/c/de"]


def test_mounts_follow_links(own: Path, spec: Spec, tmp_path: Path, data: Path) -> None:
    """The rule sees where data really is; the name stands in scripts and in the launcher."""
    real = tmp_path / "storage" / "ab12"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    rule = f"{tmp_path}/storage/([^/]+)"
    mounts = {"join": "+", "rules": {rule: r"gdata/\1"}}
    spec["output"]["store"] = str(tmp_path / "link" / "out.zarr")
    spec["cluster"] = {
        "kind": "pbs",
        "mounts": mounts,
        "resources": ["-l ncpus={cores}", "-l storage={mounts}"],
        "launcher": ["run", "--bind={mounts}"],
        "driver": {"directives": ["-l storage={mounts}"]},
    }
    cluster = load_spec(spec).cluster
    assert cluster.resources == ["-l ncpus={cores}", "-l storage=gdata/ab12"]
    assert cluster.launcher == ["run", "--bind=gdata/ab12"]
    assert cluster.driver.directives == ["-l storage=gdata/ab12"]
    spec["cluster"]["mounts"] = {"join": "+", "rules": {rule: "a b"}}
    with pytest.raises(SpecError, match=r"cluster.mounts: 'a b' cannot be named"):
        load_spec(spec)


def test_lines_without_mounts_are_left_out(own: Path, spec: Spec) -> None:
    spec = with_machine(spec, "pbs-project-storage", mounts={"rules": {"/nowhere": "x"}})
    assert load_spec(spec).cluster.resources[2:] == ["-l jobfs={scratch_gb}GB"]  # type: ignore[index]


# --- the command -----------------------------------------------------------------------------


def test_list_and_show(own: Path) -> None:
    (own / "bad.yaml").write_text("kind: slurm\n")
    (own / "home.yaml").write_text(
        "description: ours\nkind: slurm\nmemory: 2GB\nskip: [--mem]\ndirectives: [--qos=x]\n"
    )
    shown = CliRunner().invoke(main, ["machines"])
    assert shown.exit_code == 0, shown.output
    assert f"home: ours\n    {own / 'home.yaml'}" in shown.output
    assert "bad: malformed: description: is missing" in shown.output
    listed = json.loads(CliRunner().invoke(main, ["machines", "--json"]).output)
    assert [one["name"] for one in listed] == sorted(["bad", "home", *SHIPPED])
    shown = CliRunner().invoke(main, ["machines", "home"])
    assert "  memory: 2000000000\n" in shown.output
    one = json.loads(CliRunner().invoke(main, ["machines", "home", "--json"]).output)
    assert one["file"] == str(own / "home.yaml")
    assert one["worker"][-1] == "#SBATCH --qos=x"
    assert not [line for line in one["driver"] + one["worker"] if "--mem" in line]
    shown = CliRunner().invoke(main, ["machines", "bad"])
    assert shown.exit_code == 2
    assert "description: is missing" in shown.output


@pytest.mark.parametrize("name", SHIPPED)
def test_show_what_is_shipped(own: Path, name: str) -> None:
    shown = CliRunner().invoke(main, ["machines", name])
    assert shown.exit_code == 0, shown.output
    assert "{" not in "".join(re.findall("^#(?:SBATCH|PBS) .*", shown.output, re.MULTILINE))


def test_schema() -> None:
    found = json.loads(CliRunner().invoke(main, ["schema", "--machine"]).output)
    assert found["required"] == ["description"]
    assert {"queue", "mounts", "charge"} <= set(found["properties"])


# --- scripts ---------------------------------------------------------------------------------


def dry_run(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return the scripts of driver and worker that ``submit --dry-run`` prints."""
    from ruamel.yaml import YAML

    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    monkeypatch.setattr("hpc_sweep.clusters.workerjobs.shutil.which", lambda name: f"/bin/{name}")
    shown = CliRunner().invoke(main, ["submit", str(file), "--dry-run"])
    assert shown.exit_code == 0, shown.output
    driver, worker = re.split("# --- each .* ---\n|# --- on each .* ---\n", shown.stdout)
    return driver, worker


def test_project_and_storage(
    own: Path, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {str(tmp_path.parent): "gdata/ab12"}
    spec = with_machine(spec, "pbs-project-storage", account="ab12", mounts={"rules": rules})
    driver, worker = dry_run(spec, tmp_path, monkeypatch)
    for script, cores, memory in ((driver, 1, 7630), (worker, 48, 178814)):
        lines = script.splitlines()
        assert "#PBS -P ab12" in lines
        assert f"#PBS -l ncpus={cores}" in lines
        assert f"#PBS -l mem={memory}MB" in lines
        assert "#PBS -l jobfs=100GB" in lines
        assert "#PBS -l storage=gdata/ab12" in lines
        assert not [line for line in lines if "select" in line or line.startswith("#PBS -A")]
    assert '--local-directory "$PBS_JOBFS"' in worker


def test_whole_nodes(
    own: Path, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, worker = dry_run(with_machine(spec, "whole-node"), tmp_path, monkeypatch)
    header = [line for line in driver.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --cpus-per-task=128" in header
    assert "#SBATCH --exclusive" in header
    assert "#SBATCH --nodes=2" in header
    assert not [line for line in header if "--mem" in line]
    assert "--nworkers 128" in worker


def test_no_chain_here(own: Path, spec: Spec, tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    (own / "here.yaml").write_text("description: x\nkind: slurm\nmemory: 1GB\nchain: false\n")
    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(with_machine(spec, "here"), file)
    shown = CliRunner().invoke(main, ["submit", str(file), "--chain", "--dry-run"])
    assert shown.exit_code == 2
    assert "cluster.chain: is false" in shown.output


def test_launcher_words_are_quoted(
    own: Path, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = ["apptainer", "exec", "--bind={mounts}", "my image.sif", "{cores}x{{y}}"]
    spec["cluster"] = {"kind": "slurm", "workers": 2, "memory": "1GB", "launcher": launcher}
    for script in dry_run(spec, tmp_path, monkeypatch):
        last = script.strip().splitlines()[-1]
        words = shlex.split(last)
        assert words[:3] == ["exec", "apptainer", "exec"]
        assert words[3].startswith("--bind=/")
        assert words[4:6] == ["my image.sif", "1x{y}"]
        assert words[6] == sys.executable


def test_the_users_jobqueue_yaml_still_counts(
    own: Path, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask
    import dask_jobqueue.config  # noqa: F401  (reads jobqueue.yaml)

    (own / "here.yaml").write_text(
        "description: a test\nkind: pbs\nqueue: profiles\nmemory: 1GB\ndirectives: [-r n]\n"
    )
    theirs = {
        "queue": "theirs",
        "account": "theirs",
        "resource-spec": "nodes=1:ppn=2",
        "job-directives-skip": ["-A", "walltime="],
        "job-extra-directives": ["-r y", "-l tag={x}"],
        "job-script-prologue": ["module load theirs"],
    }
    with dask.config.set({"jobqueue.pbs": {**dask.config.get("jobqueue.pbs"), **theirs}}):
        driver, worker = dry_run(with_machine(spec, "here"), tmp_path, monkeypatch)
        bare = make_cluster(ClusterSpec(kind="pbs"), tmp_path, print)
        assert isinstance(bare, JobQueue)
        assert (bare.completed().queue, bare.completed().account) == ("theirs", "theirs")
    header = [line.removeprefix("#PBS ") for line in worker.splitlines() if line[:5] == "#PBS "]
    assert [text for text in header if text[:2] not in ("-e", "-o", "-N")] == [
        "-q profiles",
        "-j oe",
        "-l tag={x}",
        "-l nodes=1:ppn=2",
        "-r n",
    ]
    lines = driver.splitlines()
    assert {"#PBS -q profiles", "module load theirs"} <= set(lines)
    assert not [line for line in lines if line.startswith("#PBS -A")]
