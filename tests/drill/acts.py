"""What the drill does to a sweep: one small function for each act, in a table.

Acts are done before the first command, in the middle of it, or to the finished store. Each
returns what it did, in a few words, ``""`` where there was nothing to do it to. What lasts is
ended through `Sweep.undo`.
"""

import cutting  # noqa: F401, each of these puts its acts into the table
import damaging  # noqa: F401
import hindering  # noqa: F401
import killing  # noqa: F401
