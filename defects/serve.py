"""`python -m defects.serve`: the container's entry point, one process.

The same application, settings, exit codes and drain as `bentoml serve`, without its arbiter, and without BentoML's SDK:
importing it takes as long as the whole start does without it.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defects.replica import Replica


def main(build: Callable[[], Replica] | None = None) -> None:
    """Serve until drained (exit 0), or end with a pinned exit code; `build` makes another replica."""
    open_standard_files()
    # Until something was accepted there is nothing to drain; and a signal that uvicorn caught is raised again here.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, lambda *_: os._exit(0))
    gc.disable()  # until the start is over: it makes no garbage, and looking for some takes a tenth of it
    replica = (build or _usual)()
    import uvicorn

    from defects.serving.listener import check_health_port, listen
    from defects.settings import BadSetting

    settings = replica.settings
    try:
        listener = listen(settings.host, settings.port)
        check_health_port(settings, settings.port)
    except BadSetting as problem:
        problem.exit()
    config = uvicorn.Config(
        replica.routes,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])


def _usual() -> Replica:
    from defects.replica import Replica

    return Replica.from_environment()


def open_standard_files() -> None:
    """Open `/dev/null` where standard input, output or error is closed.

    Else the next file or connection would get its number, and whatever a library writes there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one


if __name__ == "__main__":
    main()
