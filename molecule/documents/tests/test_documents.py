"""The commands of the documents that need a provisioned host run as written.

`controller` and `last` run in a copy of the checkout. Its inventories `local` and `home` both name the host of
this scenario, as home-berlin, with the variables of inventories/local. `host` runs on the host as an administrator.
The tests rely on their order: README.md provisions the host, and the blocks `last` remove the product again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from testinfra.host import Host

from tests.documents import ROOT, Block, blocks_to_run, scratch_checkout

HOST = "occupancy-documents"
LIMIT = 900
"""Seconds for a block. It only ends a test that hangs."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout whose inventories name the host of the scenario."""
    root = scratch_checkout(tmp_path_factory.mktemp("documents") / "checkout")
    inventory = yaml.safe_load((ROOT / "inventories/local/hosts.yml").read_text())
    connection = {"ansible_connection": "community.docker.docker", "ansible_host": HOST}
    inventory["occupancy"]["hosts"] = {"home-berlin": connection}
    inventory["occupancy"]["vars"] |= {"occupancy_memory_mb": 512}
    for name in ("local", "home"):
        path = root / "inventories" / name / "hosts.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(inventory))
    images = root / "dist/images"
    images.parent.mkdir()
    images.symlink_to(ROOT / "dist/images")  # made by the stage before
    return root


def run(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a block as an operator does in the checkout, without Molecule's settings.

    Args:
        checkout: The copy of the checkout.
        script: The block.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize("block", blocks_to_run("controller"), ids=str)
def test_command_of_the_controller_runs(block: Block, checkout: Path) -> None:
    done = run(checkout, block.text)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def used_host(host: Host) -> Host:
    """A host on which cron has run a job: its metrics and its log exist."""
    done = host.run("occupancy-job maintain 600 occupancy-db partitions maintain < /dev/null")
    assert done.rc == 0, done.stdout + done.stderr
    return host


@pytest.mark.parametrize("block", blocks_to_run("host"), ids=str)
def test_command_of_the_host_runs(block: Block, used_host: Host) -> None:
    done = used_host.run("cd /root && bash -euo pipefail -c %s < /dev/null", block.text)
    assert done.rc == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks_to_run("last"), ids=str)
def test_command_that_removes_the_product_runs(block: Block, checkout: Path) -> None:
    done = run(checkout, block.text)
    assert done.returncode == 0, done.stdout + done.stderr
