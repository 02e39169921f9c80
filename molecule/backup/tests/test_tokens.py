"""The tokens of a remote, with the real rclone."""

import json

from testinfra.host import Host

TOKENS = """
import http.server, json, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        pathlib.Path("/run/asked").write_text(asked)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        token = {"access_token": "a2", "token_type": "bearer", "expires_in": 3600, "refresh_token": "the-second"}
        self.wfile.write(json.dumps(token).encode())
server = http.server.HTTPServer(("127.0.0.1", 8399), Handler)
pathlib.Path("/run/answers").touch()
server.handle_request()
"""
"""A service that renews one token, as that of OneDrive or Box."""


def test_a_token_that_rclone_renews_is_kept(host: Host) -> None:
    given, own = "/opt/occupancy/rclone.conf", "/opt/occupancy/rclone/rclone.conf"
    job = host.check_output(
        "sed -n 's/.* root \\(.* occupancy-offsite .*\\)/\\1/p' /etc/cron.d/occupancy-backup"
    )
    host.check_output(job)
    before = host.file(own).content_string
    token = {"access_token": "a1", "refresh_token": "the-first", "expiry": "2020-01-01T00:00:00Z"}
    text = f"[store]\ntype = box\ntoken_url = http://127.0.0.1:8399/\ntoken = {json.dumps(token)}\n"
    host.check_output(f"cp --preserve {given} /run/kept; printf %%s %s >{given}", text)
    host.check_output(
        "(python3 -c %s >/dev/null 2>&1 &); until [ -e /run/answers ]; do sleep 0.1; done", TOKENS
    )
    # Box itself cannot be reached: the run fails after rclone has its new token.
    nowhere = f"HTTPS_PROXY=http://127.0.0.1:9 RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=1 {job}"
    for _ in range(2):  # the token service answers once
        run = host.run(nowhere)
        assert run.rc != 0
        assert "127.0.0.1:9: connect: connection refused" in run.stderr
        assert '"refresh_token":"the-second"' in host.file(own).content_string
    assert "refresh_token=the-first" in host.file("/run/asked").content_string
    assert host.file(given).content_string == text
    assert (host.file(own).mode, host.file("/opt/occupancy/rclone").mode) == (0o600, 0o700)

    host.check_output(f"mv /run/kept {given}")
    host.check_output(job)
    assert host.file(own).content_string == before
