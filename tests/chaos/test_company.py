"""Full disks, full queues, processes that share a folder or fork."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import PATIENCE_S, Backend, Fleet, fleet
from tests.processes import until


def arrived(backend: Backend, expected: list[str], figures: dict[str, Any]) -> None:
    """All are there, each once."""
    until(lambda: backend.has(expected), PATIENCE_S, lambda: f"{len(set(expected) - backend.names.keys())} lost")
    names = backend.names
    figures.update(ended=len(expected), lost=len(set(expected) - names.keys()), twice=names.total() - len(names))
    assert figures["twice"] == 0


def test_a_full_disk_stops_neither_spans_nor_delivery(running: tuple[Fleet, Backend], figures: dict[str, Any]) -> None:
    """While nothing can be written spans stay in memory, and what is on disk goes out all the same."""
    fleet, backend = running
    backend.fail("503")
    worker = fleet.start(300, pace=0.001, size=5_000, file_limit=400_000)
    until(worker.worked, PATIENCE_S)
    assert 0 < worker.committed < 300
    backend.mend()
    arrived(backend, worker.names(300), figures)
    worker.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.getuid() == 0 and not subprocess.call(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder])
    if not mounted:
        pytest.skip("only root can mount a disk of one megabyte")
    yield folder
    subprocess.check_call(["umount", "--lazy", folder])


@pytest.mark.chaos
def test_a_disk_of_one_megabyte_is_used_again_and_again(small_disk: Path, figures: dict[str, Any]) -> None:
    """A disk that fills up, drains and fills up again loses nothing."""
    with fleet(small_disk.parent) as (workers, backend):
        worker = workers.start(3_000, pace=0.002, size=2_000, env={"TELEMETRY_SPOOL_DIR": str(small_disk)})
        for _ in range(3):
            backend.fail("503")
            time.sleep(2)
            backend.mend()
            time.sleep(1)
        until(worker.worked, PATIENCE_S)
        arrived(backend, worker.names(3_000), figures)
        worker.stop()


def test_a_full_queue_loses_nothing(running: tuple[Fleet, Backend], figures: dict[str, Any]) -> None:
    """Spans that end faster than they can be written are written by whoever ends them."""
    fleet, backend = running
    worker = fleet.start(6_000, pace=0, size=1_000, then="exit")
    arrived(backend, worker.names(6_000), figures)
    worker.join()


def test_two_processes_share_a_folder(running: tuple[Fleet, Backend], figures: dict[str, Any]) -> None:
    """Each delivers its own spans; the living one delivers those of the killed one."""
    fleet, backend = running
    backend.fail("down")
    killed, living = (fleet.start(200, pace=0.001) for _ in range(2))
    until(lambda: killed.committed > 100 and living.worked(), PATIENCE_S)
    killed.kill()
    backend.mend()
    arrived(backend, [*killed.names(killed.committed), *living.names(200)], figures)
    living.stop()


def test_a_fork_after_start(running: tuple[Fleet, Backend], figures: dict[str, Any]) -> None:
    """Parent and child go on with files of their own, also during an outage."""
    fleet, backend = running
    backend.fail("503")
    worker = fleet.start(200, pace=0.001, then="exit", fork_at=100)
    until(worker.worked, PATIENCE_S)
    backend.mend()
    child = [f"{worker.run}f-{n}" for n in range(100)]
    worker.join()
    fleet.start()
    arrived(backend, [*worker.names(200), *child], figures)


@pytest.mark.chaos
def test_memory_stays_flat(running: tuple[Fleet, Backend], figures: dict[str, Any]) -> None:
    """An hour's worth of spans leaves no more memory in use than the first minute's."""
    fleet, backend = running
    worker = fleet.start(150_000, pace=0.0003, size=1_000)
    until(lambda: worker.committed > 15_000, 120)
    early = worker.resident
    until(lambda: worker.committed >= 150_000, 600)
    figures.update(early_mb=early // 1024, late_mb=worker.resident // 1024, spans=worker.committed)
    assert worker.resident < early * 1.25
    until(lambda: backend.names.total() >= 150_000, 60)
    worker.stop()
