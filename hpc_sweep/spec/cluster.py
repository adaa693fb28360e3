"""The section of a spec that says where the work is done, and profiles of machines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ByteSize, Field

from hpc_sweep.choices import (
    AUTO,
    JobPlace,
    OutsideJobs,
    PerformanceReport,
    Rechunk,
    Security,
)
from hpc_sweep.spec.section import Section
from hpc_sweep.spec.words import (
    Amount,
    Command,
    Directive,
    Filled,
    Line,
    Option,
    Place,
    PlaceLine,
    Rules,
    ScratchFolder,
    Seconds,
    Walltime,
    Word,
)


class TlsSpec(Section):
    """Certificates for a cluster that somebody else started."""

    ca_file: Place
    cert: Place
    key: Place


class DriverSpec(Section):
    """The job of its own that ``hpc-sweep submit`` gives the driver; open keys as for workers."""

    memory: ByteSize = Field(ByteSize(4_000_000_000), description="of the driver's job")
    queue: Word | None = None
    account: Word | None = None
    walltime: Walltime | None = None
    resources: list[Directive] | None = Field(None, description="its own resource directives")
    directives: list[Directive] = Field(default_factory=list)


class ScratchSpec(Section):
    """Local disk of the nodes."""

    folder: ScratchFolder = Field(
        description="Dask's local directory there; may have variables of the job, as $TMPDIR"
    )
    size: ByteSize | None = Field(None, description="for {scratch_gb} in directives")


class MountsSpec(Section):
    """What is named for a job's paths: storage directives, or binds of a container."""

    rules: Rules = Field(
        default_factory=dict,
        description="regular expression at the beginning of a path: name; without: the paths",
    )
    join: Word = Field(",", description="what stands between the names in {mounts}")


class ChargeSpec(Section):
    """What the machine charges."""

    unit: Line = Field("core-hours", description="such as SU")
    per_core_hour: Amount | None = None
    per_node_hour: Amount | None = Field(None, description="where whole nodes are charged")
    memory_per_core: ByteSize | None = Field(
        None, description="a job that asks for more memory per core is charged for more cores"
    )


class ClusterSpec(Section):
    """Where the work is done. Never part of what the results are."""

    machine: Line | None = Field(
        None, description="name of a profile that lies under this section: hpc-sweep machines"
    )
    kind: Line = Field("local", description="local, slurm, pbs, external, or package.module:Class")
    workers: Annotated[int, Field(ge=1)] | None = Field(None, description="worker processes")
    nodes: Annotated[int, Field(ge=1)] | None = Field(None, description="in place of workers")
    workers_per_node: Annotated[int, Field(ge=1)] | None = Field(
        None, description="worker processes per job; one core each"
    )
    place: JobPlace = Field(
        "worker_jobs",
        description="of the workers, when submitted: jobs of their own, or one_job with the driver",
    )
    memory: ByteSize | None = Field(None, description="per worker process, such as 4GB or 4GiB")
    node_memory: ByteSize | None = Field(
        None, description="in place of memory: of a whole job or machine, shared by its workers"
    )
    queue: Word | None = None
    account: Word | None = None
    account_option: Option | None = Field(
        None, description="in place of --account (Slurm) and -A (PBS), such as -P"
    )
    walltime: Walltime | None = Field(
        None, description="of a worker job at the most; HH:MM:SS or D-HH:MM:SS"
    )
    time_min: Walltime | None = Field(
        "00:10:00",
        description="Slurm may shorten a job down to this to start it earlier; null: never",
    )
    interface: Word | None = Field(None, description="network interface of the nodes")
    scheduler_interface: Word | None = Field(
        None, description="that of the driver's host, where it has another name"
    )
    resources: list[Directive] | None = Field(
        None, description="in place of the directives for cores and memory: -l ncpus={cores}"
    )
    directives: list[Directive] = Field(
        default_factory=list,
        description="options of the queue to add, or to put in place of the same option",
    )
    skip: list[Option] = Field(
        default_factory=list, description="options of the queue to drop, such as --mem"
    )
    prologue: list[Line] = Field(
        default_factory=list, description="shell lines before a worker starts (module load …)"
    )
    launcher: list[Filled] = Field(
        default_factory=list, description="words before python: [apptainer, exec, image.sif]"
    )
    mounts: MountsSpec = Field(default_factory=MountsSpec, description="what {mounts} stands for")
    scratch: ScratchSpec | None = Field(None, description="local disk of the nodes")
    driver: DriverSpec = Field(
        default_factory=DriverSpec, description="the driver's own job (hpc-sweep submit)"
    )
    start_timeout: Seconds = Field(
        600.0, description="seconds to be without any worker before a run gives up"
    )
    idle_limit: Seconds = Field(
        3600.0, description="the same for a link of submit --chain, which nobody waits for"
    )
    disk_patience: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        600.0, description="seconds to wait for a disk that is full, read-only or away"
    )
    rechunk: Rechunk = Field(
        "auto",
        description="what is done first with data that is chunked the wrong way, or whose labels "
        "are scattered: copy (into the run folder) | p2p (in the workers' memory) | never | auto",
    )
    chain: bool = Field(True, description="whether submit --chain is allowed here")
    outside_jobs: OutsideJobs = Field(
        "warn", description="what run does on a queue from outside a job, such as a login node"
    )
    charge: ChargeSpec | None = Field(None, description="what the machine charges for")
    max_core_hours: Amount | None = Field(
        None, description="of all runs of a sweep and its predictions together"
    )
    quota_command: Command | None = Field(None, description="prints your quota, for doctor")
    address: Line | None = Field(None, description="external: tcp://… or tls://…")
    scheduler_file: PlaceLine | None = Field(None, description="external: in place of address")
    security: Security = Field(
        "tls", description="between driver and workers: tls, or none (whoever reaches it is you)"
    )
    dashboard: bool = Field(
        False, description="serve Dask's pages on the loopback of the driver's host"
    )
    performance_report: PerformanceReport = Field(
        AUTO,
        description="keep Dask's own report of each run, a page, in the run folder; auto: of runs "
        "of five seconds and more, on a cluster of ours",
    )
    tls: TlsSpec | None = Field(None, description="external: certificates for tls://")
    options: dict[str, Any] = Field(
        default_factory=dict, description="handed to the cluster class as they are"
    )


class MachineProfile(ClusterSpec):
    """A machine's part of ``cluster`` sections, in a file of its own."""

    description: Line = Field(description="what machine this is, in a line")
