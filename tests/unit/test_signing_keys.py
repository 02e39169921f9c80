"""The file of trusted public keys that a run merges on controller and host."""

from provisioning.signing_keys import merge

FIRST = "RWR50iD51ZsAAVXvoCLNQo7seyGfT8wSKNyOQzxrNpxbrP55KjNQ1msR"
SECOND = "RWQ50iD51ZsAAVXvoCLNQo7seyGfT8wSKNyOQzxrNpxbrP55KjNQ1msS"


def test_each_key_is_kept_once_in_order_and_nothing_else_is() -> None:
    lines = [FIRST, "untrusted comment: minisign public key 1009BD5F920D279", f" {SECOND} ", "", FIRST]
    lines += ["RWshort", f"{FIRST}A", "untrusted comment: RW"]
    assert merge(lines) == f"{FIRST}\n{SECOND}\n"
    assert merge(merge(lines).splitlines()) == merge(lines)
    assert merge([]) == ""
