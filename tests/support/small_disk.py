"""A folder whose disk can be filled, and emptied again."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A file system of 2 MB in memory, where root may mount one; else a limit on the size of any file.

    Parameters
    ----------
    folder : empty
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        self.is_mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode

    def fill(self) -> None:
        """Leave no room at all."""
        if not self.is_mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))  # less than a page
            return
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 4096)
            except OSError:
                pass

    def free(self) -> None:
        """Make room again."""
        if self.is_mounted:
            (self.folder / "ballast").unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def remove(self) -> None:
        """Unmount; close all files first."""
        self.free()
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A small disk at `folder`, removed at the end."""
    folder.mkdir()
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.remove()
