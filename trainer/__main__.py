"""`python -m trainer`: a background trainer on the registry and artifacts below ADIABAT_DATA_DIR.

Started by `torchrun` or `accelerate launch`, several processes are one trainer.
"""

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from app.errors import AdiabatError
from app.observe import logs
from app.settings import Settings
from trainer.giving_way import Room, give_way

WATCH_PARENT_S = 1.0


def main() -> int:
    arguments = _parse()
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries would tear the service's log
    if arguments.stop_with is not None:  # before the slow imports: the parent may be dying already
        threading.Thread(target=_watch_parent, args=(arguments.stop_with,), daemon=True).start()
    give_way()  # before torch starts its threads
    settings = Settings(**({"data_dir": arguments.data_dir} if arguments.data_dir else {}))
    logs.install(settings.log_format, settings.log_level)
    try:
        return _run(settings, arguments.name, beside_a_service=arguments.stop_with is not None)
    except AdiabatError as error:
        print(error.detail, file=sys.stderr)
        return 1


def _run(settings: Settings, name: str | None, *, beside_a_service: bool) -> int:
    from trainer.assist import assist  # torch takes seconds to import; --help must not
    from trainer.ranks import join
    from trainer.worker import Worker

    ranks = join()
    if ranks.rank:
        for each in (signal.SIGTERM, signal.SIGINT):  # launchers send it to all: the first one says when it is over
            signal.signal(each, signal.SIG_IGN)
        assist(ranks)
        return 0
    worker = Worker(settings, name, ranks)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if beside_a_service and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # no /proc
            Room().start()
    worker.run()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Tunes query encoders in the background: claims tuning jobs, tunes, measures, registers.",
        epilog="examples: ADIABAT_DATA_DIR=/srv/adiabat python -m trainer; on two GPUs: torchrun --nproc-per-node 2 "
        "-m trainer --data-dir /srv/adiabat",
    )
    parser.add_argument("--data-dir", type=Path, help="the service's data folder (default: ADIABAT_DATA_DIR)")
    parser.add_argument("--name", help="this worker's name in the registry (default: host and process id)")
    parser.add_argument("--stop-with", type=int, metavar="PID", help="end when this process, the parent, has ended")
    return parser.parse_args()


def _watch_parent(parent: int) -> None:
    """A killed service must not leave a trainer behind that nobody supervises."""
    while os.getppid() == parent:
        threading.Event().wait(WATCH_PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
