"""The store: metadata first, durable parts, folds as the only writers of result chunks."""

from hpc_sweep.store.answers import Answers, count_answers, remove_answers
from hpc_sweep.store.change import Change, change_store, set_pending, tidy
from hpc_sweep.store.creation import (
    consolidate,
    coordinate_arrays,
    create_array,
    create_store,
    made_whole,
    write_fixed,
)
from hpc_sweep.store.durable import durably, probe, sync, write_durably
from hpc_sweep.store.existing import existing_store
from hpc_sweep.store.files import chunk_name, fixed_files, writing
from hpc_sweep.store.fold import Choice, Folded, choices, fold
from hpc_sweep.store.foreign import ForeignError, what_is
from hpc_sweep.store.header import ATTRIBUTE, check_schema, packed
from hpc_sweep.store.holder import Holder, is_known_alive, is_known_dead
from hpc_sweep.store.journal import Journal, event_of, read_events
from hpc_sweep.store.layout import refit_lengths, result_arrays
from hpc_sweep.store.lease import (
    Lease,
    beats,
    check_nonce,
    hold,
    read_holder,
)
from hpc_sweep.store.ledger import Ledger
from hpc_sweep.store.lostfiles import check_files
from hpc_sweep.store.modelfile import ModelFile
from hpc_sweep.store.modelfiles import ModelFiles, all_chunks, models_folder, remove_other_models
from hpc_sweep.store.openchunk import Derivation, OpenChunk
from hpc_sweep.store.outage import Outage
from hpc_sweep.store.parts import (
    Part,
    PartName,
    Receipt,
    RefitPart,
    delete_parts,
    is_whole,
    list_parts,
    parse_name,
    write_part,
)
from hpc_sweep.store.predictions import (
    MEANINGS,
    NOT_PREDICTED,
    UNKNOWN,
    Job,
    PredictionHeader,
    Predictions,
    read_note,
)
from hpc_sweep.store.ranks import best, mean_and_std, partition_status, rank
from hpc_sweep.store.runfolder import (
    RunFolder,
    is_free,
    read_asked,
    real_place,
    run_folder,
    write_asked,
)
from hpc_sweep.store.sharing import give_all, group_access, group_fault, group_id
from hpc_sweep.store.signing import NoKeyError, lacks_signature, sign_types, signed_types
from hpc_sweep.store.store import Store

__all__ = [
    "ATTRIBUTE",
    "MEANINGS",
    "NOT_PREDICTED",
    "UNKNOWN",
    "Answers",
    "Change",
    "Choice",
    "Derivation",
    "Folded",
    "ForeignError",
    "Holder",
    "Job",
    "Journal",
    "Lease",
    "Ledger",
    "ModelFile",
    "ModelFiles",
    "NoKeyError",
    "OpenChunk",
    "Outage",
    "Part",
    "PartName",
    "PredictionHeader",
    "Predictions",
    "Receipt",
    "RefitPart",
    "RunFolder",
    "Store",
    "all_chunks",
    "beats",
    "best",
    "change_store",
    "check_files",
    "check_nonce",
    "check_schema",
    "choices",
    "chunk_name",
    "consolidate",
    "coordinate_arrays",
    "count_answers",
    "create_array",
    "create_store",
    "delete_parts",
    "durably",
    "event_of",
    "existing_store",
    "fixed_files",
    "fold",
    "give_all",
    "group_access",
    "group_fault",
    "group_id",
    "hold",
    "is_free",
    "is_known_alive",
    "is_known_dead",
    "is_whole",
    "lacks_signature",
    "list_parts",
    "made_whole",
    "mean_and_std",
    "models_folder",
    "packed",
    "parse_name",
    "partition_status",
    "probe",
    "rank",
    "read_asked",
    "read_events",
    "read_holder",
    "read_note",
    "real_place",
    "refit_lengths",
    "remove_answers",
    "remove_other_models",
    "result_arrays",
    "run_folder",
    "set_pending",
    "sign_types",
    "signed_types",
    "sync",
    "tidy",
    "what_is",
    "write_asked",
    "write_durably",
    "write_fixed",
    "write_part",
    "writing",
]
