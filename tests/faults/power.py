"""A power failure, simulated: what was not synced is lost, what was is there, down to names in folders.

`power.c` records what each fsync of a process and its children made durable; `lose` makes the folder that the disk
would hold. `survivors` keeps some unsynced files as they were in memory, which a kernel may write whenever it likes.
"""

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("power.c")
SETTLE = "import sys; from pathlib import Path; from app.passages.disk import sync_tree; sync_tree(Path(sys.argv[1]))"


def build(folder: Path) -> Path:
    """The library, compiled."""
    library = folder / "power.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """Over everything below `root`, which is durable as it is now."""

    library: Path
    root: Path
    shadow: Path

    def settle(self) -> None:
        for name in ("files", "dirs"):
            (self.shadow / name).mkdir(parents=True)
        run(SETTLE, self.root, self.variables)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the processes whose power will fail."""
        return {
            "LD_PRELOAD": str(self.library),
            "POWER_ROOT": str(self.root),
            "POWER_SHADOW": str(self.shadow),
        }

    def lose(self, target: Path, survivors: random.Random | None = None) -> None:
        """Make `target` what a disk would hold. The processes must have been killed before."""
        self._restore((self.shadow / "root").read_text(), target)
        if survivors is not None:
            for path in sorted(target.rglob("*")):
                current = self.root / path.relative_to(target)
                if path.is_file() and current.is_file() and survivors.random() < 0.5:
                    path.unlink()
                    _copy(current, path)

    def _restore(self, folder_id: str, target: Path) -> None:
        target.mkdir()
        names = self.shadow / "dirs" / folder_id
        for line in names.read_text().splitlines() if names.exists() else ():
            kind, entry_id, name = line.split(" ", 2)
            content = self.shadow / "files" / entry_id
            if kind == "d":
                self._restore(entry_id, target / name)
            elif content.exists():
                _copy(content, target / name)
            else:
                (target / name).touch()


def _copy(source: Path, target: Path) -> None:
    """Without holes, of which passages have 100 MB."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)


def run(program: str, root: Path, variables: dict[str, str]) -> None:
    """A Python program on `root`, under that power."""
    subprocess.run([sys.executable, "-c", program, str(root)], env=os.environ | variables, check=True)
