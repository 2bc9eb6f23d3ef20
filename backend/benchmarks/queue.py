"""The figures of the job queue, peers beside us; `queue_rows.py` measures, `queue_workers.py` has the contenders.

Programs of this folder find it before the standard library's module of the same name, which asyncio and others import. Imported, it
is therefore that module.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from sysconfig import get_path


def _standard_library() -> None:
    spec = spec_from_file_location("queue", Path(get_path("stdlib")) / "queue.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["queue"] = module
    spec.loader.exec_module(module)


_standard_library()

if __name__ == "__main__":
    from harness import main
    from queue_rows import measure

    main(
        "queue",
        measure,
        "Jobs that do nothing, one worker process each, 1 producer; rates are the best of the rounds.",
        "dramatiq keeps no results and runs 8 threads, its default; taskiq keeps results; rq forks for each job, its default.",
        "Idle commands are the server's own count, those inside scripts included, of one worker and one queue.",
    )
