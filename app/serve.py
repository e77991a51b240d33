"""`adiabat serve`: the service and, beside it, a supervised trainer process."""

import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.assembly import assemble
from app.encoders.memory import give_back, use_one_arena
from app.errors import AdiabatError, BadInput, Unavailable
from app.main import create_app
from app.observe import logs
from app.registry import Registry
from app.settings import LOOPBACK_HOSTS, Settings, unknown
from app.web import web_options

log = logging.getLogger("adiabat.serve")

TRAINER_NAME = "embedded"
RESTART_S = (1, 2, 5, 15, 30)
STOP_TRAINER_S = 15
SOON_S = 5.0
CLOSE_S = 20.0  # for taking everything apart once the answers have ended; what hangs then ends with the process


def serve(settings: Settings) -> None:
    """Run until a signal. Raises `AdiabatError` with one sentence where it cannot start."""
    if settings.host not in LOOPBACK_HOSTS and not _has_key(settings):
        raise BadInput(
            f"Without a key the service binds only to loopback, and --host is {settings.host}: set ADIABAT_API_KEY to "
            f"open it to others, or 'adiabat keys create admin --scope admin --data-dir {settings.data_dir}'."
        )
    use_one_arena()
    logs.install(settings.log_format, settings.log_level)
    for said in unknown(os.environ):
        log.warning("%s docs/settings.md lists all of them.", said)
    _check_port(settings)
    with ExitStack() as stack:
        parts = assemble(settings, stack)
        supervisor = Supervisor(settings, parts.registry) if settings.trainer else None
        if supervisor is not None:
            supervisor.start()
            parts.own_trainer.began = time.monotonic()
            stack.callback(supervisor.stop)
        stopping = threading.Event()
        limit_s = settings.shutdown_s + CLOSE_S
        threading.Thread(target=_see_it_end, args=(stopping, supervisor, limit_s), name="stop", daemon=True).start()
        active = parts.slot.current
        log.info(
            "serving %d passages with %s, generation %d, on http://%s:%d",
            parts.store.count(),
            active.encoder.record.key,
            active.generation,
            settings.host,
            settings.port,
        )
        app = create_app(settings, parts)
        _settle_memory()
        _soon(app)
        # The access log is ours (app.api.observed), and so is the form of every record.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        web = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_s,
            **web_options(settings),
        )
        with suppress(KeyboardInterrupt), _terminated_in_order():
            _Server(web, on_exit=(parts.events.close, parts.intake.close, stopping.set)).run()


def _settle_memory() -> None:
    """What was imported stays: without this every full collection walks it and stops all threads for 75 ms."""
    gc.collect()
    gc.freeze()
    give_back()


def _soon(app: FastAPI) -> None:
    """What takes a second and no start waits for, nor the first who asks: the classes of filters, the description."""

    def make() -> None:
        try:
            import_module("app.passages.edge_filters")
            app.openapi()
        except Exception:  # whoever asks for it is told
            log.exception("the filters or the description of the API could not be made ready")
        _settle_memory()

    timer = threading.Timer(SOON_S, make)
    timer.daemon = True
    timer.start()


def _has_key(settings: Settings) -> bool:
    """Whether somebody could come in, and let others in."""
    if settings.api_key is not None:
        return True
    if settings.registry_url is None and not settings.registry_path.exists():
        return False
    registry = Registry(settings.registry_at)
    try:
        return registry.keys.has_admin()
    finally:
        registry.close()


def _check_port(settings: Settings) -> None:
    """Before anything is loaded. Raises `Unavailable` where another process listens there."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno in (socket.EAI_NONAME, errno.EADDRNOTAVAIL):
                raise Unavailable(
                    f"{settings.host!r} (--host, ADIABAT_HOST) is no address of this machine; 127.0.0.1 listens to "
                    "this machine alone, 0.0.0.0 to others too."
                ) from error
            raise Unavailable(
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}); choose another port with "
                "--port or ADIABAT_PORT, or stop what listens there."
            ) from error


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """The web server raises the signal that ended it once more when it is done: the default would end the process
    there, with the store and the trainer not yet closed."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _see_it_end(stopping: threading.Event, supervisor: "Supervisor | None", limit_s: float) -> None:
    """Beside the answers under way the trainer stops; and whatever hangs, the process ends."""
    stopping.wait()
    if supervisor is not None:
        supervisor.dismiss()
    time.sleep(limit_s)
    log.error("not stopped within %g s: the process ends as it is, and nothing acknowledged is lost", limit_s)
    os._exit(1)


class _Server(uvicorn.Server):
    """A server that stops waits for its answers to end; `on_exit` ends those that may have no end of their own.

    It is called by a signal, between any two steps of the main thread: it may set flags, and take no lock.
    """

    def __init__(self, config: uvicorn.Config, *, on_exit: Iterable[Callable[[], None]]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for end in self._on_exit:
            end()
        super().handle_exit(sig, frame)


class Supervisor:
    """Keeps one trainer alive: a dead one's job is marked interrupted, and another is started."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        # Where several services share a registry, each has a trainer of its own.
        self._name = (
            TRAINER_NAME if settings.registry_url is None else f"{TRAINER_NAME}-{socket.gethostname()}-{os.getpid()}"
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-supervisor", daemon=True)
        self._spawning = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._thread.start()

    def dismiss(self) -> None:
        """Tell the trainer to stop, and start no other; `stop` waits for it."""
        with self._spawning:  # no child may be born between the flag and the look
            self._stop.set()
            if self._child is not None:
                self._child.terminate()

    def stop(self) -> None:
        self.dismiss()
        child = self._child
        if child is not None:
            try:
                child.wait(STOP_TRAINER_S)
            except subprocess.TimeoutExpired:
                child.kill()
        self._thread.join()

    def _run(self) -> None:
        deaths = 0
        while not self._stop.is_set():
            pause_s = RESTART_S[min(deaths, len(RESTART_S) - 1)]
            deaths += 1
            try:
                self._bury()
                with self._spawning:
                    if self._stop.is_set():
                        break
                    self._child = self._spawn()
                status = self._child.wait()
            except Exception:  # the registry or the machine's memory: what may be back in a while
                log.exception("no trainer could be started; it is tried again in %d s", pause_s)
            else:
                if self._stop.is_set():
                    break
                log.error("the trainer ended with status %d; another starts in %d s", status, pause_s)
            self._stop.wait(pause_s)
        try:
            self._bury()
        except AdiabatError as error:  # the next start does it again
            log.warning("the trainer's job could not be marked interrupted: %s", error.detail)

    def _bury(self) -> None:
        """Jobs of the trainer that went: nobody works on them any more. Raises `Unavailable`."""
        self._registry.workers.leave(self._name)
        another = any(age_s < self._settings.trainer_lease_s for age_s in self._registry.workers.ages_s().values())
        for job_id in self._registry.jobs.interrupt(worker=self._name, hand_on=another):
            log.error("the trainer of the job %s died: it is %s", job_id, self._registry.jobs.find(job_id).status.shown)

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = self._settings
        environment = os.environ | {
            "ADIABAT_DATA_DIR": str(settings.data_dir.resolve()),
            "ADIABAT_ENGINE": settings.engine,
            "ADIABAT_THREADS": str(settings.threads),
        }
        if settings.registry_url is not None:
            environment["ADIABAT_REGISTRY_URL"] = settings.registry_url
        command = [sys.executable, "-P", "-m", "trainer", "--name", self._name, "--stop-with", str(os.getpid())]
        # Its own session: Ctrl-C is for the service, which then ends its trainer in order.
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
