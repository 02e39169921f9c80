"""The life of two hosts that are reached over SSH, with a password for sudo and images from registries, in this order.

The controller's Docker commands go to the engine of occupancy-hub, whose mirror plays Docker Hub.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg2
import pytest
import testinfra
import yaml
from testinfra.host import Host

from provisioning import digests, images
from tests.documents import scratch_checkout
from tests.hosts import run_playbook

PULL, CE, HUB = "occupancy-pull", "occupancy-ce", "occupancy-hub"
REGISTRY = "occupancy-hub:5443"
EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
SUDO = ("--become-password-file", str(EPHEMERAL / "sudo.password"))
ENGINE = "tcp://10.215.16.10:2375"
"""The engine of the hub, for the controller's Docker commands."""
FOREIGN = "docker inspect --format '{{.Id}} {{.State.Running}}' occupancy-homeassistant-1"


def on(name: str) -> Host:
    """The host, as its root and without SSH."""
    return testinfra.get_host(f"docker://{name}")


def variables_of(name: str) -> dict[str, Any]:
    """The variables of a host, without the expressions of its connection."""
    found: dict[str, Any] = {}
    for path in ("group_vars/occupancy.yml", f"host_vars/{name}.yml"):
        found |= yaml.safe_load((Path(__file__).parents[1] / path).read_text())
    return {key: value for key, value in found.items() if "{{" not in str(value)}


class Controller:
    """An operator's checkout, and what its runs have shown."""

    root: Path
    ops = ""
    seconds = 0.0
    foreign = ""

    def run(self, playbook: str, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """Run a playbook in the checkout with the password for sudo."""
        start = time.monotonic()
        ops = {"container_images_ops": self.ops} if self.ops else {}
        done = run_playbook(playbook, *SUDO, *arguments, root=self.root, engine=ENGINE, **ops | variables)
        self.seconds = time.monotonic() - start
        return done

    def changes(self, playbook: str, *arguments: str, **variables: object) -> dict[str, int]:
        """Run a playbook that must succeed, and return the number of changed tasks of each host."""
        done = self.run(playbook, *arguments, **variables)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        found = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", done.stdout, re.MULTILINE)
        return {name: int(count) for name, count in found}


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """A copy of the checkout."""
    controller = Controller()
    controller.root = scratch_checkout(tmp_path_factory.mktemp("controller") / "checkout")
    return controller


@pytest.fixture(autouse=True)
def _the_foreign_containers_survive(controller: Controller) -> Iterator[None]:
    """After each test the containers of the other project are those of before, and run."""
    yield
    if controller.foreign:
        assert on(CE).check_output(FOREIGN) == controller.foreign


def test_the_digest_is_recorded_and_another_image_takes_the_tag(controller: Controller) -> None:
    done = controller.run("digests.yml")
    assert done.returncode == 0, done.stdout[-6000:]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    address = "http://10.215.16.10:5000/v2/library/postgres/manifests/16-trixie"
    with urlopen(Request(address, headers={"Accept": kind}), timeout=30) as answer:
        digest = answer.headers["Docker-Content-Digest"]
    assert digests.read(controller.root) == {"postgres:16-trixie": digest}
    tag = "10.215.16.10:5000/library/postgres:16-trixie"
    on(HUB).check_output(
        "printf 'FROM postgres:16-trixie\\nLABEL of=another\\n' | "
        f"docker build --quiet --tag {tag} - && docker push --quiet {tag} && docker image prune --all --force"
    )


def test_the_official_image_comes_from_the_registry(controller: Controller) -> None:
    done = controller.run("images.yml", "--limit", CE)  # without localhost
    assert done.returncode == 0, done.stdout[-6000:]
    made = images.read_manifest(controller.root)
    assert made["postgres"]["origin"] == "pulled from a registry"
    assert made["postgres"]["image"].startswith("occupancy-postgres:16-")
    digest = digests.read(controller.root)["postgres:16-trixie"]
    assert made["postgres"]["reference"] == f"postgres:16-trixie@{digest}"
    assert f"{digest} was pulled from a registry" in " ".join(done.stdout.split())
    controller.ops = f"{REGISTRY}/{made['ops']['image']}"
    password = (EPHEMERAL / "registry.password").read_text()
    subprocess.run(
        ["docker", "exec", "-i", HUB, "sh", "-euc",
         f"docker login --username operator --password-stdin {REGISTRY} && "
         f"docker tag {made['ops']['image']} {controller.ops} && docker push --quiet {controller.ops}"],
        input=password, text=True, check=True, capture_output=True,
    )  # fmt: skip


def test_an_outage_of_the_registry_keeps_the_official_image(controller: Controller) -> None:
    before = images.read_manifest(controller.root)
    hub = on(HUB)
    hub.check_output("systemctl stop registry-5000")
    done = controller.run("images.yml", container_images_refresh=True)
    hub.check_output(
        "systemd-run --unit=registry-5000 --collect docker-registry serve /etc/docker-registry/5000.yml"
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "is kept" in done.stdout
    assert images.read_manifest(controller.root) == before


def test_two_hosts_are_provisioned(controller: Controller) -> None:
    ce = on(CE)
    assert ce.run("docker info").rc != 0
    changed = controller.changes("site.yml")
    assert min(changed[PULL], changed[CE]) > 0
    controller.foreign = ce.check_output(FOREIGN)
    assert controller.foreign.endswith("true")
    assert ce.package("docker-ce").is_installed
    assert not ce.package("docker.io").is_installed
    assert ce.service("docker").is_enabled
    assert ce.run("ls /etc/apt/*/occupancy-trixie.*").rc != 0
    for host in (ce, on(PULL)):
        running = host.check_output(
            "docker inspect --format '{{.Config.Image}}' $(docker ps -q --filter name=postgres)"
        )
        assert "built" not in running
        labels = host.check_output(f"docker image inspect --format '{{{{json .Config.Labels}}}}' {running}")
        assert "another" not in labels
    assert running == f"postgres@{digests.read(controller.root)['postgres:16-trixie']}"


@pytest.mark.parametrize("name", [PULL, CE])
def test_a_client_connects(name: str, controller: Controller) -> None:
    password = on(name).check_output("cat /opt/occupancy/secrets/occupancy_app")
    connection = psycopg2.connect(
        host=variables_of(name)["ansible_host"],
        dbname="occupancy",
        user="occupancy_app",
        password=password,
        sslmode="verify-full",
        sslrootcert=controller.root / f"dist/ca/{name}.crt",
    )
    connection.close()


def test_a_second_run_changes_nothing_over_ssh_and_without(
    controller: Controller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds: dict[str, list[float]] = {"ssh": [], "docker exec": []}
    other = tmp_path / "inventory"
    other.mkdir()
    hosts = {
        name: variables_of(name)
        | {
            "ansible_connection": "community.docker.docker",
            "ansible_docker_extra_args": "--host unix:///var/run/docker.sock",
            "ansible_user": "root",
            "ansible_host": name,
        }
        | {"tls_names": [name, variables_of(name)["ansible_host"], "localhost", "127.0.0.1", "::1"]}
        for name in (PULL, CE)
    }
    (other / "hosts.yml").write_text(yaml.safe_dump({"occupancy": {"hosts": hosts}}))
    over_ssh = os.environ["MOLECULE_INVENTORY_FILE"]
    for _ in range(2):
        for kind, inventory in (("ssh", over_ssh), ("docker exec", str(other))):
            monkeypatch.setenv("MOLECULE_INVENTORY_FILE", inventory)
            assert set(controller.changes("site.yml").values()) == {0}, kind
            seconds[kind].append(controller.seconds)
    with capsys.disabled():
        print(f"seconds of a second run: {seconds}")


def test_a_check_reports_no_difference(controller: Controller) -> None:
    done = controller.run("site.yml", "--check", "--diff")
    assert done.returncode == 0
    assert not re.search(r"changed=[1-9]", done.stdout), done.stdout[-6000:]


def test_a_backup_is_taken_and_restored(controller: Controller) -> None:
    controller.changes("backup.yml")
    for name in (PULL, CE):
        assert json.loads(on(name).check_output("occupancy-db --json backup list </dev/null"))["sets"]


def test_a_restore_survives_a_lost_connection(controller: Controller) -> None:
    pull = on(PULL)
    with ThreadPoolExecutor() as pool:
        restore = pool.submit(
            controller.changes,
            *("restore.yml", "--limit", PULL),
            restore_set="latest",
            restore_confirm="occupancy",
        )
        while pull.run("pgrep --full '[o]ccupancy_db restore'").rc != 0:
            assert not restore.done(), restore.result()
        pull.check_output("pkill -KILL --full '^sshd(-session)?: [^ ]+@'")
        restore.result()


def test_migrations_run_in_batches(controller: Controller) -> None:
    controller.changes("migrate.yml")


def test_certificates_and_passwords_are_replaced(controller: Controller) -> None:
    before = on(PULL).check_output("sha256sum /opt/occupancy/secrets/occupancy_app")
    controller.changes("rotate.yml")
    assert on(PULL).check_output("sha256sum /opt/occupancy/secrets/occupancy_app") != before


def test_a_run_after_all_of_that_changes_nothing(controller: Controller) -> None:
    # The directory of the other project is called occupancy. Its orphans are none of the product's containers.
    on(CE).check_output("docker compose --project-directory /srv/occupancy up --detach --remove-orphans")
    done = controller.run("site.yml", "--diff")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    changed = re.findall(r"TASK (?:(?!TASK).)*?changed:.*?(?=\n\n)", done.stdout, re.DOTALL)
    assert not changed, "\n".join(changed)


def test_the_product_is_removed(controller: Controller) -> None:
    for name in (PULL, CE):
        controller.changes("uninstall.yml", "--limit", name, uninstall_data="occupancy")
        assert not on(name).file("/opt/occupancy").exists
