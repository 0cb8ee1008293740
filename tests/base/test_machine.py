"""Cores and memory of a container, read from trees of files as Linux lays them out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from gpuseq.base import machine as cgroups
from gpuseq.base import threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_nothing_is_limited_where_nothing_says_so(tmp_path: Path) -> None:
    assert cgroups.cpu_limit(tmp_path) is None
    assert cgroups.memory_left(tmp_path) is None


def test_version_2_in_a_container(tmp_path: Path) -> None:
    """With a name space of its own: the container's group is the root of what it sees."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/cpu.max": "250000 100000",
            "sys/fs/cgroup/memory.max": "8000",
            "sys/fs/cgroup/memory.current": "5000",
            "sys/fs/cgroup/memory.stat": "anon 3000\ninactive_file 1500\nactive_file 500",
        },
    )
    assert cgroups.cpu_limit(tmp_path) == 2.5
    assert cgroups.memory_left(tmp_path) == 8000 - 5000 + 1500


def test_version_2_takes_the_tightest_of_the_groups_above(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/work",
            "sys/fs/cgroup/pod/work/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/work/memory.max": "max",
            "sys/fs/cgroup/pod/work/memory.current": "10",
            "sys/fs/cgroup/pod/cpu.max": "50000 100000",
            "sys/fs/cgroup/pod/memory.max": "1000",
            "sys/fs/cgroup/pod/memory.current": "2000",
        },
    )
    assert cgroups.cpu_limit(tmp_path) == 0.5
    assert cgroups.memory_left(tmp_path) == 0


def test_version_1_with_the_hosts_paths(tmp_path: Path) -> None:
    """Docker without a name space: the path is the host's, and the container's own group is the mount."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n2:cpuacct,cpu:/docker/abc\n1:name=systemd:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "4000",
            "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 1000",
        },
    )
    assert cgroups.cpu_limit(tmp_path) == 1.5
    assert cgroups.memory_left(tmp_path) == 5001


def test_version_1_without_limits(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "4000",
        },
    )
    assert cgroups.cpu_limit(tmp_path) is None
    assert cgroups.memory_left(tmp_path) is None


@pytest.mark.parametrize(("limit", "count"), [(None, 8), (2.5, 3), (0.2, 1), (64.0, 8)])
def test_threads_are_counted_by_the_limit(monkeypatch: pytest.MonkeyPatch, limit: float | None, count: int) -> None:
    monkeypatch.delenv("GPUSEQ_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "cpu_limit", lambda: limit)
    threads._usable_cores.cache_clear()
    try:
        assert threads.cpu_count() == count
        monkeypatch.setenv("GPUSEQ_NUM_THREADS", "5")
        assert threads.cpu_count() == 5
    finally:
        threads._usable_cores.cache_clear()


def test_a_group_that_counts_no_pages_of_files_gives_none_up(tmp_path: Path) -> None:
    group = {"memory.max": "8000", "memory.current": "5000", "memory.stat": "anon 3000\nfile 100"}
    write(tmp_path, {"proc/self/cgroup": "0::/"} | {f"sys/fs/cgroup/{name}": text for name, text in group.items()})
    assert cgroups.memory_left(tmp_path) == 3000
    (tmp_path / "sys/fs/cgroup/memory.stat").unlink()
    assert cgroups.memory_left(tmp_path) == 3000


@pytest.mark.parametrize(("left", "wanted"), [(None, 6 << 20), (1 << 20, 1 << 20), (1 << 60, 6 << 20)])
def test_memory_is_what_system_and_container_leave(
    monkeypatch: pytest.MonkeyPatch, left: int | None, wanted: int
) -> None:
    text = "MemTotal:       9216 kB\nMemFree:   4096 kB\nMemAvailable:   6144 kB\n"
    monkeypatch.setattr(cgroups, "open", lambda path: io.StringIO(text), raising=False)
    monkeypatch.setattr(cgroups, "memory_left", lambda: left)
    assert cgroups.available_memory() == wanted


@pytest.mark.parametrize(("left", "wanted"), [(None, 4 << 30), (1 << 20, 1 << 20)])
def test_memory_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch, left: int | None, wanted: int) -> None:
    def missing(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(cgroups, "open", missing, raising=False)
    monkeypatch.setattr(cgroups, "memory_left", lambda: left)
    assert cgroups.available_memory() == wanted
