"""The size of the application's connection pool."""

from dataclasses import dataclass

from occupancy_db.environment import Environment


@dataclass(frozen=True)
class Pool:
    """The pool of one process of the application, in SQLAlchemy's terms."""

    size: int
    overflow: int

    @property
    def most(self) -> int:
        """The largest number of connections."""
        return self.size + self.overflow


def pool(environment: Environment, cores: float = 2, processes: int = 1, most: int | None = None) -> Pool:
    """The pool of one process of the application.

    About 2 x cores + 1 sessions keep the cores and one disk busy (PostgreSQL wiki, Number Of Database
    Connections). More sessions compete inside the server, where waiting costs more than in the pool. The
    processes divide these connections; the overflow lets one process use all of them while the others are
    idle. The pool of the other environments has a fixed size, limited by the server's memory.

    Args:
        environment: The size is calculated for production only.
        cores: CPUs of the server.
        processes: Processes of the application.
        most: The largest number of connections that the server's memory allows for one process.
    """
    if environment is not Environment.PRODUCTION:
        size = min(5, most or 5)
        return Pool(size, min(10, most - size) if most else 10)
    busy = int(2 * cores) + 1
    if most is not None:
        busy = min(busy, most)
    size = max(min(2, busy), -(-busy // max(processes, 1)))
    return Pool(size, busy - size)
