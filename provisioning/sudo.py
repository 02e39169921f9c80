"""Check whether tasks can become root.

If a password is missing, Ansible's error does not say that sudo requires one.
"""

from __future__ import annotations

import os
import shutil
import subprocess


def find_problem(password_known: bool) -> str:
    """Return why tasks on this machine cannot become root, with the command to use; empty if they can.

    Args:
        password_known: Whether Ansible was given a password for sudo.
    """
    if os.geteuid() == 0 or password_known:
        return ""
    sudo = shutil.which("sudo")
    if sudo is None:
        return "This needs root, and sudo is not installed. Run it as root. Nothing was changed."
    # -n: fail instead of asking
    run = subprocess.run([sudo, "-n", "true"], check=False, capture_output=True)  # noqa: S603
    if run.returncode == 0:
        return ""
    return (
        "sudo needs your password. Run: make up ANSIBLE_ARGS=--ask-become-pass "
        "(with ansible-playbook, add --ask-become-pass). Nothing was changed."
    )
