"""Cores and memory that this process may use: the machine's, within the limits of Linux' control groups.

References
----------
``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst`` of the Linux kernel: ``cpu.max``,
``memory.max``, ``memory.current``, ``memory.stat``; ``cpu.cfs_quota_us``, ``memory.limit_in_bytes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["available_memory", "cpu_limit", "memory_left"]

UNLIMITED = 1 << 60  # version 1 says "no limit" by a number near 2**63


def available_memory() -> int:
    """Return the bytes of host memory that this process, or its container, could take; 4 GiB where nothing says."""
    # /proc/meminfo speaks of the whole machine also within a container, so the smaller of the two holds.
    left = memory_left()
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    free = int(line.split()[1]) * 1024
                    return free if left is None else min(free, left)
    except OSError:
        pass
    return 4 << 30 if left is None else left


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the process may use, None for no limit.

    Parameters
    ----------
    root : pathlib.Path
        Where ``proc`` and ``sys`` are.
    """
    shares = []
    # A group is bounded by each group above it, so the least of them counts. Version 2 says both numbers in one file,
    # version 1 in two; -1 and "max" are no digits, and mean no limit.
    for group in _groups(root, "cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            shares.append(int(quota) / int(period))
    return min(shares, default=None)


def memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes that the process may take on top of what its groups use, None for no limit.

    Parameters
    ----------
    root : pathlib.Path
        Where ``proc`` and ``sys`` are.

    Notes
    -----
    Pages of files that are not in use any more count as free: the kernel gives them up first.
    """
    left = []
    for group in _groups(root, "memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.isdecimal() and used.isdecimal() and int(limit) < UNLIMITED:
            left.append(max(0, int(limit) - int(used) + _reclaimable(group)))
    return min(left, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process' group and of those above it, in either version."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mounts = root / "sys/fs/cgroup"
        mount = mounts / controller if controllers else mounts
        # Within a container the path may be the host's, and not be there: its own group is the mount itself.
        inner = PurePosixPath(path.lstrip("/"))
        for one in (inner, *inner.parents):
            if (mount / one).is_dir():
                yield mount / one


def _reclaimable(group: Path) -> int:
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
