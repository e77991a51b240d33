"""Which file systems are this machine's own: what is mapped from one of another's may be gone while it is read."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
OWN = {"aufs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "fuse.fuse-overlayfs", "jfs", "overlay", "ramfs"}
OWN |= {"reiserfs", "tmpfs", "xfs", "zfs"}


def is_own(folder: Path) -> bool:
    """Whether no other machine can remove a file in `folder`. False where it cannot be told."""
    here, depth, kind = folder.resolve(), 0, ""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").split("\n")
    except OSError:  # not Linux
        return False
    for line in lines:
        if line.count(" ") < 2:
            continue
        _, escaped, its_kind, *_ = line.split(" ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), escaped))
        if here.is_relative_to(point) and len(point.parts) >= depth:  # the last one lies over those before it
            depth, kind = len(point.parts), its_kind
    return kind in OWN
