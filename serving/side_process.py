"""A process beside the server, with libraries that the server does without: kept up, and ended with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from serving.settings import Settings

_END_SECONDS = 5.0


@dataclass
class SideProcess:
    """One that runs, and the settings for those who deal with it; made by `start`."""

    module: str
    settings: Settings
    place: Path
    """A folder of its own; removed by `stop`."""
    restart_seconds: float
    stdout: int
    process: subprocess.Popen[bytes]
    _environ: dict[str, str] = field(repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def start(
        cls,
        module: str,
        settings: Settings,
        place: Path,
        restart_seconds: float,
        stdout: int = subprocess.DEVNULL,
    ) -> SideProcess:
        """Run a module of ours, told its settings by STEPIN_* variables.

        Parameters
        ----------
        restart_seconds : how long `keep_up` waits before it starts one anew that ended by itself
        stdout : as for `subprocess.Popen`
        """
        others = {name: text for name, text in os.environ.items() if not name.startswith("STEPIN_")}
        path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
        environ = {**others, **settings.to_environ(), "PYTHONPATH": path}
        process = _run(module, environ, stdout)
        return cls(module, settings, place, restart_seconds, stdout, process, environ)

    def keep_up(self) -> None:
        """Start it again whenever it ends by itself, in a thread, until `stop`."""
        threading.Thread(target=self._keep_up, name=self.module, daemon=True).start()

    def _keep_up(self) -> None:
        while True:
            self.process.wait()
            if self._stopped.wait(self.restart_seconds):
                return
            with self._changing:
                if self._stopped.is_set():
                    return
                _close(self.process)
                self.process = _run(self.module, self._environ, self.stdout)

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._stopped.set()
        with self._changing:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
            self.process.kill()
            self.process.wait()
            _close(self.process)
        shutil.rmtree(self.place, ignore_errors=True)


def _run(module: str, environ: dict[str, str], stdout: int) -> subprocess.Popen[bytes]:
    """A process that ends when this one does: its standard input ends then. Ctrl+C is for this one alone."""
    command = [sys.executable, "-P", "-m", module]
    return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=stdout, process_group=0)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
