"""The size of the application's connection pool."""

from dataclasses import dataclass

from occupancy_db.environment import Environment


@dataclass(frozen=True)
class Pool:
    """Connections of one process of the application, as SQLAlchemy counts them."""

    size: int
    overflow: int

    @property
    def most(self) -> int:
        """Open at once."""
        return self.size + self.overflow


def pool(environment: Environment, cores: float = 2, processes: int = 1, most: int | None = None) -> Pool:
    """The connections of one process of the application.

    About 2 x cores + 1 sessions keep the cores and one disk busy (PostgreSQL wiki, Number Of Database
    Connections). More would only compete inside the server, and it is cheaper to wait in the pool. The
    processes share them out; what one lacks to the whole is overflow, so that it may have them all while the
    others are idle.
    The pool of development is what the operator's manual promises, as far as there is memory for it.

    Args:
        environment: Production computes; the others do not depend on the machine.
        cores: Of the server.
        processes: Of the application.
        most: What the server's memory allows for one process.
    """
    if environment is not Environment.PRODUCTION:
        size = min(5, most or 5)
        return Pool(size, min(10, most - size) if most else 10)
    busy = int(2 * cores) + 1
    if most is not None:
        busy = min(busy, most)
    size = max(min(2, busy), -(-busy // max(processes, 1)))
    return Pool(size, busy - size)
