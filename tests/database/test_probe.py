"""What the probe of role occupancy asks a server."""

from __future__ import annotations

from pathlib import Path

from tests.database.cluster import Cluster

QUERY = Path(__file__).parents[2] / "roles/occupancy/files/server_state.sql"


def test_the_state_of_a_server_has_the_settings_that_need_a_restart(cluster: Cluster) -> None:
    # The server of these tests has no certificate.
    query = QUERY.read_text().replace("current_setting('ssl_cert_file')", "current_setting('hba_file')")
    with cluster.connect("postgres") as connection, connection.cursor() as cursor:
        cursor.execute(query)
        (state,) = cursor.fetchone() or ({},)
    assert {"max_connections", "shared_buffers", "wal_level"} <= set(state["fixed"])
    assert not {"work_mem", "max_wal_size"} & set(state["fixed"])
