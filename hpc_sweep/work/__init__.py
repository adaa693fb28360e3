"""What runs on a worker."""

from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.collections import CollectionTasks, train_again
from hpc_sweep.work.copying import SlabJournal, Slabs, SlabTasks
from hpc_sweep.work.engine import DaskMLTasks
from hpc_sweep.work.evaluation import evaluate_partitions
from hpc_sweep.work.peers import Exchange, Peers, PeersLostError, PeerTasks
from hpc_sweep.work.persisting import PersistingTasks
from hpc_sweep.work.requests import RequestTasks
from hpc_sweep.work.tasks import Context

__all__ = [
    "Bench",
    "CollectionTasks",
    "Context",
    "DaskMLTasks",
    "Exchange",
    "PeerTasks",
    "Peers",
    "PeersLostError",
    "PersistingTasks",
    "RequestTasks",
    "SlabJournal",
    "SlabTasks",
    "Slabs",
    "evaluate_partitions",
    "open_bench",
    "train_again",
]
