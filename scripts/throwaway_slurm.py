#!/usr/bin/env python3
"""A throwaway Slurm cluster on one machine: a submit host and up to nine nodes.

Each node is a network namespace on a bridge, with its own PID, mount, UTS and
IPC namespaces, host name, ``/tmp``, ``/dev/shm``, ``/etc/hosts``, munged and
slurmd. The root namespace is the submit host, where slurmctld runs under the
host name ``login``. Root and Debian's ``slurm-wlm munge iproute2`` are needed;
systemd, ``/etc/slurm`` and ``/etc/munge`` are neither used nor touched.

Every folder of the machine is the nodes' "shared file system", except ``/tmp``,
which each node has for itself (``RUN_FOLDER/nodes/NAME/tmp``). The run folder is
shared wherever it is; any other folder below ``/tmp``, pytest's base folder for
example, is shared only if named at the start (``--share``, ``shared=``). What is
mounted later is seen by the nodes where it is below ``RUN_FOLDER/mounts``.

Beyond the usual partitions ``debug`` and ``short`` there is ``closed``, where
jobs pend for ever. Job ids start at 100000 times the third number of the
cluster's address (10.77.X.1), plus one: control groups are named after node and
job only, so two clusters on one machine must not share ids.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGE_OF = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sinfo": "slurm-wlm",
    "munged": "munge",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
}
CGROUP_ROOT = Path("/sys/fs/cgroup")
STATE_ROOT = Path("/run")  # short, so that sockets below it fit in 108 bytes; empty after a reboot
MARKER = ".throwaway_slurm"
RECORD = "record.json"
DEADLINE_S = 30.0
TERMINATE_S = 10.0
MAX_NODES = 9  # one digit in addresses and links
JOBS_PER_CLUSTER = 100_000
CONTROLLER_PORT = 26800  # plus X of 10.77.X.1, as all controllers share the root namespace
SLURMD_PORT = 6818
CONTAINMENT = "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup"
NO_CONTAINMENT = "ProctrackType=proctrack/pgid\nTaskPlugin=task/none"
COMMANDS = {
    "up": "bring it up, wait for its nodes, print the line that sets SLURM_CONF",
    "down": "end and remove everything but the run folder",
    "kill-node": "cut a node's power",
    "start-node": "start a killed node",
    "cut-network": "take a node's link down",
    "heal-network": "take it up again",
    "kill-controller": "end slurmctld; jobs run on",
    "start-controller": "start it again, with the jobs that it knew",
}

SLURM_CONF = """\
ClusterName=test
SlurmctldHost=login({prefix}.1)
SlurmctldPort={controller_port}
SlurmdPort={slurmd_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={here}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={run}/state
SlurmdSpoolDir={here}/spool
SlurmctldPidFile={run}/log/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
SlurmctldLogFile={run}/log/slurmctld.log
SlurmdLogFile={run}/log/slurmd.%n.log
{containment}
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={run}/log/jobcomp.log
SlurmdTimeout=10
KillWait=5
CompleteWait=0
MinJobAge=300
FirstJobId={first_job_id}
MaxJobId={last_job_id}
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,bf_continue
EnforcePartLimits=ALL
NodeName=node[1-{n_nodes}] NodeAddr={prefix}.1[1-{n_nodes}] CPUs=4 RealMemory=6000 State=UNKNOWN
PartitionName=DEFAULT Nodes=ALL State=UP DefMemPerCPU=500 DefaultTime=00:10:00
PartitionName=debug Default=YES MaxTime=01:00:00
PartitionName=short MaxTime=00:05:00 DefaultTime=00:05:00 MaxNodes=2
PartitionName=closed State=DOWN
"""
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainRAMSpace=yes\n"

MUNGED = (
    "munged --force --socket=$here/munge.socket --key-file=$run/etc/munge.key"
    " --pid-file=$here/munged.pid --seed-file=$here/munged.seed"
    " --log-file=$run/log/munged.$name.log"
)
AWAIT_WORD = 'cd / && read -r word && exec "$@" </dev/null'
LOGIN_MUNGED = f"here=$1 run=$2 name=login; exec {MUNGED} --foreground"
LOGIN_SLURMCTLD = "hostname login && exec slurmctld -D"

# Runs as process 1 of a node: $1 name, $2 state folder, $3 run folder, then the
# shared folders below /tmp, which are reached through a spare mount of the old /tmp.
NODE_INIT = f"""\
set -eu
name=$1 here=$2 run=$3; shift 3
private=$run/nodes/$name
hostname "$name"
mount --bind "$run/etc/hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --bind "$private/state" "$here"
mount --rbind /tmp "$here/old_tmp"
mount --bind "$private/tmp" /tmp
for folder in "$@"; do
    mkdir -p "$folder"
    mount --rbind "$here/old_tmp/${{folder#/tmp/}}" "$folder"
done
umount -l "$here/old_tmp"
{MUNGED}
slurmd -D &
wait $!
"""


class ThrowawaySlurmError(RuntimeError):
    """What went wrong and what to do; ``exit_code`` 2 for the user, 3 for the cluster."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Process:
    """A process known by its id and start time: a reused id is not mistaken for it."""

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether it still runs; reaps it if it was our child."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return _start_ticks(self.pid) == self.start_ticks

    def terminate(self) -> None:
        """Send SIGTERM, and wait for its end for a while."""
        if not self.is_alive():
            return
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + TERMINATE_S
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)

    def kill(self, *, is_node: bool) -> None:
        """Send SIGKILL to it and its children.

        Of a node only process 1 gets it: with that the kernel ends all the others,
        and the recorded process, process 1's parent (unshare), goes last.
        """
        if not self.is_alive():
            return
        children = _children(self.pid)
        for pid in children if is_node and children else [self.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Node:
    """One node's names and addresses."""

    name: str
    address: str
    mac: str  # fixed, so that a node started again leaves no stale ARP entries
    namespace: str
    link: str  # the bridge's end of its cable


@dataclass
class Record:
    """What is up, kept in the state folder for later calls."""

    octet: int
    n_nodes: int
    shared: list[str]
    processes: dict[str, Process] = field(default_factory=dict)

    def nodes(self, tag: str) -> dict[str, Node]:
        """All nodes by name; ``tag`` tells this machine's clusters apart."""
        return {
            f"node{i}": Node(
                name=f"node{i}",
                address=f"10.77.{self.octet}.1{i}",
                mac=f"02:77:4d:{self.octet:02x}:00:{i:02x}",
                namespace=f"ts{tag}-node{i}",
                link=f"ts{tag}n{i}",
            )
            for i in range(1, self.n_nodes + 1)
        }

    def is_whole(self) -> bool:
        """Whether all daemons and nodes run."""
        alive = [process.is_alive() for process in self.processes.values()]
        return all(alive) and len(alive) == self.n_nodes + 2


class ThrowawaySlurm:
    """A throwaway Slurm cluster that belongs to one run folder.

    Parameters
    ----------
    run_folder : path
        New, empty, or that of an earlier run. Logs stay there after ``down``.
    n_nodes : int
        Number of nodes, 1 to 9; they are named ``node1`` and so on.
    shared : sequence of paths
        Existing folders below ``/tmp`` that all nodes shall see.

    Attributes
    ----------
    conf : Path
        The value for ``SLURM_CONF``.
    bridge : str
        The submit host's interface to the nodes (theirs is ``eth0``).
    mounts : Path
        All nodes see what is mounted below it later.

    Raises
    ------
    ThrowawaySlurmError
        From every method, when the machine or an argument does not do (exit
        code 2), or the cluster does not do its part in 30 s (exit code 3).
    """

    def __init__(
        self, run_folder: str | Path, n_nodes: int = 3, shared: Sequence[str | Path] = ()
    ) -> None:
        self.run = Path(run_folder).resolve()
        self.conf = self.run / "etc" / "slurm.conf"
        self.mounts = self.run / "mounts"
        self.n_nodes = n_nodes
        self._shared = [str(Path(folder).resolve()) for folder in (run_folder, *shared)]
        self._tag = hashlib.sha256(os.fsencode(self.run)).hexdigest()[:6]
        self._here = STATE_ROOT / f"throwaway-slurm-{self._tag}"
        self.bridge = f"ts{self._tag}"

    @property
    def address(self) -> str:
        """The submit host's address on the nodes' network, while up."""
        return f"10.77.{self._loaded().octet}.1"

    def up(self) -> None:
        """Bring the cluster up and return when all nodes are idle.

        Nothing happens if all of it runs already. A cluster that runs only in
        part is torn down and started afresh. On failure all is torn down, and
        the error has the ends of the logs as a note.
        """
        _check_machine()
        self._check_arguments()
        with _machine_lock():
            record = self._load()
            if record and record.is_whole():
                self._check_same(record)
                return
            self._tear_down()
            try:
                self._bring_up()
            except BaseException as error:
                error.add_note(self._log_tails())
                self._tear_down()
                raise

    def down(self) -> None:
        """End and remove all but the run folder; fine when nothing is there.

        It is a power cut for jobs. An ``srun`` or ``salloc`` that still waits in the
        root namespace is the caller's process, and waits on: end it before.
        """
        _check_root()
        with _machine_lock():
            self._tear_down()

    def kill_node(self, name: str) -> None:
        """Cut a node's power; nothing happens if that was done before.

        Its link goes first, so that nobody hears of its processes' end.
        """
        with _machine_lock():
            record, node = self._find(name)
            if name in record.processes:
                self._cut_power(record, node)

    def start_node(self, name: str) -> None:
        """Start a dead node and wait for its slurmd; nothing happens if it runs."""
        with _machine_lock():
            record, node = self._find(name)
            process = record.processes.get(name)
            if process and process.is_alive():
                return
            if process:  # it ended by itself
                self._cut_power(record, node)
            self._boot(record, node)
            slurmd = (node.address, SLURMD_PORT)
            _wait_until(lambda: _answers(slurmd), f"slurmd on {name}", record)

    def kill_controller(self) -> None:
        """End slurmctld and leave the nodes alone; nothing happens if it is gone.

        It gets the time to save what it knows: after SIGKILL within seconds of a job's start it
        would drain the job's node.
        """
        with _machine_lock():
            record = self._loaded()
            if "slurmctld" not in record.processes:
                return
            record.processes["slurmctld"].terminate()
            _end("slurmctld", record)
            self._save(record)

    def start_controller(self) -> None:
        """Start slurmctld with the jobs that it knew; nothing happens if it runs."""
        with _machine_lock():
            record = self._loaded()
            process = record.processes.get("slurmctld")
            if not (process and process.is_alive()):
                self._start_slurmctld(record)

    def cut_network(self, name: str) -> None:
        """Take a node's link down; the node itself runs on."""
        _ip(f"link set {self._find_running(name).link} down")

    def heal_network(self, name: str) -> None:
        """Take a node's link up again."""
        _ip(f"link set {self._find_running(name).link} up")

    def _check_arguments(self) -> None:
        if not 1 <= self.n_nodes <= MAX_NODES:
            raise ThrowawaySlurmError(f"{self.n_nodes} nodes asked for: give 1 to {MAX_NODES}")
        if not re.fullmatch(r"[\w./+-]+", str(self.run), re.ASCII):  # it goes into slurm.conf
            message = f"folder {str(self.run)!r}: only letters, digits and _ . / + - are allowed"
            raise ThrowawaySlurmError(message)
        for folder in self._shared:
            if folder == "/tmp" or Path("/dev/shm") in (Path(folder), *Path(folder).parents):
                message = f"folder {folder}: /tmp as a whole and /dev/shm are each node's own"
                raise ThrowawaySlurmError(message)
        for folder in self._shared[1:]:
            if not Path(folder).is_dir():
                raise ThrowawaySlurmError(f"shared folder {folder} does not exist")
        if self.run.exists() and not (self.run / MARKER).exists() and os.listdir(self.run):
            message = f"{self.run} holds other things than a throwaway Slurm: give a new folder"
            raise ThrowawaySlurmError(message)

    def _check_same(self, record: Record) -> None:
        if record.n_nodes != self.n_nodes or not set(self._shared) <= set(record.shared):
            message = (
                f"{self.run} is up already, with {record.n_nodes} nodes and the shared "
                f"folders {', '.join(record.shared)}: call down first"
            )
            raise ThrowawaySlurmError(message)

    def _load(self) -> Record | None:
        try:
            fields = json.loads((self._here / RECORD).read_text())
        except FileNotFoundError:
            return None
        processes = {name: Process(**each) for name, each in fields.pop("processes").items()}
        return Record(**fields, processes=processes)

    def _loaded(self) -> Record:
        _check_root()
        record = self._load()
        if record is None:
            raise ThrowawaySlurmError(f"no throwaway Slurm is up at {self.run}: call up first")
        return record

    def _save(self, record: Record) -> None:
        new = self._here / f"{RECORD}.new"
        new.write_text(json.dumps(asdict(record), indent=1))
        new.replace(self._here / RECORD)

    def _find(self, name: str) -> tuple[Record, Node]:
        record = self._loaded()
        nodes = record.nodes(self._tag)
        if name not in nodes:
            raise ThrowawaySlurmError(f"no node {name!r}: there are {', '.join(nodes)}")
        return record, nodes[name]

    def _find_running(self, name: str) -> Node:
        record, node = self._find(name)
        if name not in record.processes:
            raise ThrowawaySlurmError(f"{name} has no power: call start-node first")
        return node

    def _bring_up(self) -> None:
        self._make_folders()
        record = Record(self._lay_bridge(), self.n_nodes, self._shared)
        self._write_configuration(record)
        self._start_munged(record)
        self._start_slurmctld(record, "-c")  # what an earlier one knew is forgotten
        for node in record.nodes(self._tag).values():
            self._boot(record, node)
        _wait_until(self._all_idle, "all nodes to be idle", record)

    def _make_folders(self) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        (self.run / MARKER).touch()
        for name in ("etc", "log", "state", "nodes"):
            shutil.rmtree(self.run / name, ignore_errors=True)
            (self.run / name).mkdir()
        self._here.mkdir()
        self._here.chmod(0o755)
        self.mounts.mkdir(exist_ok=True)
        _mount("--bind", self.mounts, self.mounts)
        _mount("--make-shared", self.mounts)

    def _lay_bridge(self) -> int:
        octet = _free_octet()
        _ip(f"link add {self.bridge} address 02:77:4d:{octet:02x}:00:00 type bridge")
        _ip(f"address add 10.77.{octet}.1/24 dev {self.bridge}")
        _ip(f"link set {self.bridge} up")
        return octet

    def _write_configuration(self, record: Record) -> None:
        text = SLURM_CONF.format(
            run=self.run,
            here=self._here,
            prefix=f"10.77.{record.octet}",
            n_nodes=record.n_nodes,
            controller_port=CONTROLLER_PORT + record.octet,
            slurmd_port=SLURMD_PORT,
            containment=CONTAINMENT if _has_cgroup_v1() else NO_CONTAINMENT,
            first_job_id=record.octet * JOBS_PER_CLUSTER + 1,
            last_job_id=(record.octet + 1) * JOBS_PER_CLUSTER - 1,
        )
        self.conf.write_text(text)
        self.conf.with_name("cgroup.conf").write_text(CGROUP_CONF)
        # jobs of Slurm's qsub get PBS_JOBID and its like from this plugin
        self.conf.with_name("plugstack.conf").write_text("optional spank_pbs.so\n")
        hosts = ["127.0.0.1 localhost", f"10.77.{record.octet}.1 login {socket.gethostname()}"]
        hosts += [f"{node.address} {node.name}" for node in record.nodes(self._tag).values()]
        self.conf.with_name("hosts").write_text("\n".join(hosts) + "\n")
        key = self.conf.with_name("munge.key")
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def _start_munged(self, record: Record) -> None:
        command = ["sh", "-c", LOGIN_MUNGED, "sh", str(self._here), str(self.run)]
        self._spawn(record, "munged", command)
        _wait_until((self._here / "munge.socket").exists, "munged", record)

    def _start_slurmctld(self, record: Record, *options: str) -> None:
        command = " ".join([LOGIN_SLURMCTLD, *options])
        self._spawn(record, "slurmctld", ["unshare", "--uts", "sh", "-c", command])
        address = (f"10.77.{record.octet}.1", CONTROLLER_PORT + record.octet)
        _wait_until(lambda: _answers(address), "slurmctld", record)

    def _boot(self, record: Record, node: Node) -> None:
        self._plug(node)
        for name in ("tmp", "state/old_tmp", "state/spool"):
            (self.run / "nodes" / node.name / name).mkdir(parents=True, exist_ok=True)
        (self.run / "nodes" / node.name / "tmp").chmod(0o1777)
        isolate = "--uts --ipc --mount --propagation=slave --pid --mount-proc --fork --kill-child"
        hidden = [folder for folder in record.shared if folder.startswith("/tmp/")]
        arguments = [node.name, str(self._here), str(self.run), *hidden]
        command = ["nsenter", f"--net=/run/netns/{node.namespace}", "unshare", *isolate.split()]
        self._spawn(record, node.name, [*command, "sh", "-c", NODE_INIT, "sh", *arguments])

    def _plug(self, node: Node) -> None:
        inside = f"-netns {node.namespace}"
        peer = f"peer name eth0 netns {node.namespace} address {node.mac}"
        _ip(f"netns add {node.namespace}")
        _ip(f"link add {node.link} type veth {peer}")
        _ip(f"link set {node.link} master {self.bridge} up")
        _ip(f"{inside} address add {node.address}/24 dev eth0")
        _ip(f"{inside} link set eth0 up")
        _ip(f"{inside} link set lo up")

    def _cut_power(self, record: Record, node: Node) -> None:
        _ip(f"link set {node.link} down")
        _end(node.name, record)
        _ip(f"link delete {node.link}")
        _ip(f"netns delete {node.namespace}")
        self._save(record)

    def _spawn(self, record: Record, name: str, command: Sequence[str]) -> None:
        """Start a process and record it.

        It waits for a word from us before it does anything, and ends if we die
        first: so nothing ever runs that is not in the saved record. ``Popen`` isn't
        used because it warns of children that outlive it.
        """
        log = os.fspath(self.run / "log" / f"{name}.out")
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb"), os.fdopen(writer, "wb") as word:
            pid = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", AWAIT_WORD, "sh", *command],
                self._environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT],
            )
            record.processes[name] = Process(pid, _start_ticks(pid) or 0)
            self._save(record)
            word.write(b"go\n")

    def _environment(self) -> dict[str, str]:
        return {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "SLURM_CONF": str(self.conf)}

    def _all_idle(self) -> bool:
        command = ["sinfo", "--noheader", "--Node", "--partition=debug", "--format=%T"]
        sinfo = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False
        )
        return sinfo.stdout.split() == ["idle"] * self.n_nodes

    def _tear_down(self) -> None:
        record = self._load()
        if record:
            for name in list(record.processes):
                _end(name, record)
        for link in Path("/sys/class/net").glob(f"{self.bridge}*"):
            _ip(f"link delete {link.name}")
        for namespace in Path("/run/netns").glob(f"{self.bridge}-*"):
            _ip(f"netns delete {namespace.name}")
        if self._here.exists():
            shutil.rmtree(self._here)
        # where it is mounted on itself nothing but the kernel's list knows it for a mount
        unmount = ["umount", "--lazy", "--recursive", str(self.mounts)]
        while not subprocess.run(unmount, capture_output=True, check=False).returncode:
            pass
        if not any(STATE_ROOT.glob("throwaway-slurm-*")):
            _remove_cgroups(CGROUP_ROOT.glob("*/slurm_node[1-9]"))

    def _log_tails(self, n_lines: int = 15) -> str:
        tails = []
        for log in sorted((self.run / "log").glob("*.[lo]*")):
            lines = log.read_text(errors="replace").splitlines()[-n_lines:]
            if lines:
                tails.append("\n".join([f"--- end of {log}", *lines]))
        return "\n".join(tails)


def _ip(arguments: str) -> str:
    return _run(["ip", *arguments.split()])


def _mount(*arguments: object) -> None:
    _run(["mount", *map(str, arguments)])


def _run(command: Sequence[str]) -> str:
    environment = {"PATH": SYSTEM_PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ThrowawaySlurmError(f"{' '.join(command)}: {done.stderr.strip()}", exit_code=3)
    return done.stdout


def _check_root() -> None:
    if os.geteuid() != 0:
        raise ThrowawaySlurmError("a throwaway Slurm needs root: namespaces, links and munged")


def _check_machine() -> None:
    _check_root()
    missing = [name for name in PACKAGE_OF if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        packages = sorted({PACKAGE_OF[name] for name in missing})
        message = f"missing: {', '.join(missing)}; install Debian's {' '.join(packages)}"
        raise ThrowawaySlurmError(message)


@contextlib.contextmanager
def _machine_lock() -> Iterator[None]:
    """Let one call at a time change clusters of this machine."""
    folder = os.open(STATE_ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _free_octet() -> int:
    """Lowest X for which nothing on this machine has an address in 10.77.X.0/24."""
    taken = {
        int(address["local"].split(".")[2])
        for link in json.loads(_ip("-json -4 address show"))
        for address in link["addr_info"]
        if address["local"].startswith("10.77.")
    }
    free = set(range(256)) - taken
    if not free:
        raise ThrowawaySlurmError("all of 10.77.0.0/16 is taken: call down for old run folders")
    return min(free)


def _has_cgroup_v1() -> bool:
    """Whether the controllers that Slurm needs are mounted where it looks for them."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    mounted = {mount[1] for mount in mounts if mount[2] == "cgroup"}
    return {str(CGROUP_ROOT / "freezer"), str(CGROUP_ROOT / "memory")} <= mounted


def _end(name: str, record: Record) -> None:
    """Kill a daemon or node, wait until it is gone, and remove its jobs' control groups."""
    process = record.processes[name]
    process.kill(is_node=name.startswith("node"))

    def is_gone() -> bool:
        for job in _job_cgroups(name, record):
            for state in job.rglob("freezer.state"):
                with contextlib.suppress(OSError):  # gone in the meantime
                    state.write_text("THAWED")  # what is frozen doesn't die of SIGKILL
        return not process.is_alive()

    _wait_until(is_gone, f"the end of {name}")
    _remove_cgroups(_job_cgroups(name, record))
    del record.processes[name]


def _job_cgroups(name: str, record: Record) -> list[Path]:
    first = record.octet * JOBS_PER_CLUSTER
    return [
        folder
        for folder in CGROUP_ROOT.glob(f"*/slurm_{name}/uid_*/job_*")
        if first < int(folder.name.removeprefix("job_")) < first + JOBS_PER_CLUSTER
    ]


def _remove_cgroups(folders: Iterable[Path]) -> None:
    """Remove control groups in which nothing runs any more, innermost first."""
    for top in folders:
        for folder, _, _ in os.walk(top, topdown=False):
            Path(folder).rmdir()


def _wait_until(condition: Callable[[], bool], what: str, record: Record | None = None) -> None:
    """Wait up to 30 s, or until a process of ``record`` has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if record:
            ended = [name for name, process in record.processes.items() if not process.is_alive()]
            if ended:
                message = f"waiting for {what}: {', '.join(ended)} ended"
                raise ThrowawaySlurmError(message, exit_code=3)
        if time.monotonic() > deadline:
            raise ThrowawaySlurmError(f"waited {DEADLINE_S:g} s for {what}", exit_code=3)
        time.sleep(0.02)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def _start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A throwaway Slurm cluster on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        command.add_argument("run_folder", type=Path)
        if name == "up":
            command.add_argument("--nodes", type=int, default=3, help="1 to 9 (default: 3)")
            command.add_argument("--share", action="append", default=[], metavar="FOLDER")
        elif name.endswith(("-node", "-network")):
            command.add_argument("node", help="for example node1")
    return parser.parse_args(argv)


def _carry_out(arguments: argparse.Namespace) -> None:
    if arguments.command == "up":
        slurm = ThrowawaySlurm(arguments.run_folder, arguments.nodes, arguments.share)
        slurm.up()
        print(f"export SLURM_CONF={slurm.conf}")
    else:
        method = getattr(ThrowawaySlurm(arguments.run_folder), arguments.command.replace("-", "_"))
        method(*([arguments.node] if "node" in arguments else []))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        _carry_out(_parse(argv))
    except ThrowawaySlurmError as error:
        lines = [f"throwaway_slurm: {error}", *getattr(error, "__notes__", [])]
        print("\n".join(lines), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
