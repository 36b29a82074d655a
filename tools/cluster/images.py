"""File systems of a run's own, in files, which can be full without anybody else noticing.

Mounted in the run's own mount namespace (`run_alone` of setup.sh): they are gone with its last process.
"""

import contextlib
import errno
import os
import subprocess

FILLER = "filler"


class Image:
    """An ext4 of `size` bytes, mounted on `folder`; the file takes what is written to it."""

    def __init__(self, path, size, folder):
        self._folder, self._filler = folder, os.path.join(folder, FILLER)
        os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "root_owner,nodiscard", path], check=True)
        subprocess.run(["mount", "-o", "loop", path, folder], check=True)

    def fill(self):
        """To the last block."""
        with open(self._filler, "ab") as file:
            for step in (16 << 20, 1 << 20, 4096):
                self._extend(file.fileno(), step)

    @staticmethod
    def _extend(descriptor, step):
        try:
            while True:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, step)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def free(self):
        # Two faults at once may have filled it: the first that ends makes room for both.
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._filler)

    def unmount(self):
        subprocess.run(["umount", "--lazy", self._folder], check=True)
