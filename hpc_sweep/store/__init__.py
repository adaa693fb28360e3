"""The store: metadata first, durable parts, folds as the only writers of result chunks."""

from hpc_sweep.store.creation import create_store
from hpc_sweep.store.durable import probe
from hpc_sweep.store.fold import fold
from hpc_sweep.store.journal import Journal, read_events
from hpc_sweep.store.layout import result_arrays
from hpc_sweep.store.lease import Lease, check_nonce, hold, is_known_dead, read_holder
from hpc_sweep.store.ledger import Ledger
from hpc_sweep.store.outage import Outage
from hpc_sweep.store.parts import Part, PartName, Receipt, delete_parts, list_parts, write_part
from hpc_sweep.store.runfolder import RunFolder, real_place, run_folder
from hpc_sweep.store.sharing import give_all, group_access, group_fault, group_id
from hpc_sweep.store.store import ATTRIBUTE, Store

__all__ = [
    "ATTRIBUTE",
    "Journal",
    "Lease",
    "Ledger",
    "Outage",
    "Part",
    "PartName",
    "Receipt",
    "RunFolder",
    "Store",
    "check_nonce",
    "create_store",
    "delete_parts",
    "fold",
    "give_all",
    "group_access",
    "group_fault",
    "group_id",
    "hold",
    "is_known_dead",
    "list_parts",
    "probe",
    "read_events",
    "read_holder",
    "real_place",
    "result_arrays",
    "run_folder",
    "write_part",
]
