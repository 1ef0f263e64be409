import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, free_port

PORTS = ("", "UI_", "VIEWER_", "COLLECTOR_", "COLLECTOR_HEALTH_", "COLLECTOR_METRICS_", "COLLECTOR_ZPAGES_")


def shown(folder: Path, **settings: str) -> str:
    """What the demo prints of its turn, without the addresses."""
    ports = {f"{name}PORT": str(free_port()) for name in PORTS}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = kept | ports | {"DATA_DIR": str(folder), "DEMO_ONCE": "1", "PYTHON_DOTENV_DISABLED": "1"} | settings
    done = subprocess.run(
        [sys.executable, "-m", "app.demo"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return "\n".join(line for line in done.stdout.splitlines() if "http://" not in line)


def test_the_demo_shows_the_same_tree_through_the_collector(tmp_path: Path) -> None:
    """COLLECTOR=1 prints what the demo prints without it, and the collector was there."""
    through = shown(tmp_path / "through", COLLECTOR="1")
    assert (tmp_path / "through" / "logs" / "collector.log").exists()
    assert "chat turn" in through
    assert through == shown(tmp_path / "straight")
