"""The table at the end of playbooks/migrate.yml, and of site.yml for several hosts.

A callback and not a last play: after a batch in which every host failed, Ansible begins no other play.
"""

from __future__ import annotations

import io
import shutil
import sys
from typing import Any

from ansible.executor.stats import AggregateStats
from ansible.executor.task_result import CallbackTaskResult
from ansible.plugins.callback import CallbackBase
from rich.console import Console
from rich.table import Table

DOCUMENTATION = """
name: migrations
type: aggregate
short_description: The result of the migrations on each host
description: Prints a table after a playbook that has set the stat migrations_hosts to the names of its hosts.
"""


class CallbackModule(CallbackBase):
    """The callback that Ansible loads."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "migrations"

    def __init__(self) -> None:
        super().__init__()
        self._failures: dict[str, str] = {}

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Keep the first failure of a host as one line."""
        # The message of a failed command does not contain its error output.
        said = result.result.get("stderr") or result.result.get("msg") or "see above"
        self._failures.setdefault(result.host.get_name(), " ".join(str(said).split()))

    v2_runner_item_on_failed = v2_runner_on_failed

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Print the table if the playbook has named its hosts."""
        hosts = stats.custom.get("_run", {}).get("migrations_hosts")
        if not hosts:
            return
        reasons = {host: stats.custom.get(host, {}).get("restart_reasons", []) for host in hosts}
        restart = ["Restart"] if any(reasons.values()) else []
        table = Table("Host", "From", "To", "Seconds", "Slowest lock", *restart, "Result")
        for host in hosts:
            done = stats.custom.get(host, {}).get("migrations_result", {})
            lock = done.get("slowest_lock_ms")
            table.add_row(
                host,
                _revision(done, "from"),
                _revision(done, "to"),
                f"{sum(done['phases'].values()):.0f}" if done.get("phases") else "",
                "" if lock is None else f"{lock:g} ms",
                *(["; ".join(reasons[host])] if restart else []),
                self._outcome(host, done, stats),
            )
        # A pipe has no width.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
        console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)  # [a-z] is not a style
        console.print(table)
        self._display.display(console.file.getvalue())  # type: ignore[attr-defined]  # the StringIO of above

    def _outcome(self, host: str, done: dict[str, Any], stats: AggregateStats) -> str:
        if stats.dark.get(host):
            return "unreachable"
        if stats.failures.get(host):
            return f"failed: {self._failures.get(host, 'see above')}"
        if "pending" in done:  # a check
            if done["problems"]:
                return f"would stop: {'; '.join(done['problems'])}"
            if done["ahead"]:
                return f"nothing to do, ahead of this release by {', '.join(done['ahead'])}"
            return f"would apply {', '.join(done['pending'])}" if done["pending"] else "nothing to do"
        if done.get("ahead"):
            return f"serves, ahead of this release by {', '.join(done['ahead'])}"
        if done:
            return "migrated, serves" if done["applied"] else "was there already, serves"
        if stats.custom.get(host, {}).get("provisioned"):
            return "done"
        return "not begun"


def _revision(done: dict[str, Any], key: str) -> str:
    return (done[key] or "base") if key in done else ""
