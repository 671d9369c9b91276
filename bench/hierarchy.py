"""How long it takes to find the inactive groups of large hierarchies, on an embedded server of its own.

python bench/hierarchy.py
"""

import time
from pathlib import Path

from bench import Home, home

SHAPES = {
    "a chain of 100,000 groups, the deepest active": (100_000, "n - 1", "n = 100000"),
    "a bushy tree of 1,000,000 groups, 1 % of them active": (1_000_000, "n / 8", "n % 100 = 0"),
    "a bushy tree of 1,000,000 groups, none active": (1_000_000, "n / 8", "false"),
    "one cycle of 100,000 groups, one active": (100_000, "n % 100000 + 1", "n = 1"),
    "200,000 groups in cycles of 1 to 20, half active": (
        200_000,
        "n - n % 20 + (n + 1) % (n / 20 % 20 + 1)",
        "n % 40 < 20",
    ),
}


def measure(server: Home, many: int, parent: str, active: str) -> float:
    """Seconds of the function that a sync calls."""
    with server.connect() as connection:
        connection.execute("TRUNCATE groups, group_membership, agents CASCADE")
        connection.execute("""INSERT INTO agents (agent_id, email, name, deactivated, status, sync_day, source)
            VALUES (1, 'a', 'a', false, 'active', 'd', 'api')""")
        connection.execute(
            f"""INSERT INTO groups (group_id, name, parent_group_id, inactive)
            SELECT n, 'g', nullif({parent}, 0), true FROM generate_series(1, {many}) AS n"""
        )
        connection.execute(
            f"INSERT INTO group_membership SELECT n, 1 FROM generate_series(1, {many}) AS n WHERE {active}"
        )
        connection.commit()
        connection.execute("SET work_mem = '128MB'; SET jit = off")
        began = time.monotonic()
        connection.execute("SELECT deskroll_mark_inactive_groups()")
        seconds = time.monotonic() - began
        connection.commit()
        began = time.monotonic()
        connection.execute("SELECT deskroll_mark_inactive_groups()")
        again = time.monotonic() - began
    print(f"{seconds:.2f} s, unchanged {again:.2f} s", flush=True)
    return seconds


if __name__ == "__main__":
    work = Path("bench/out").absolute()
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    with home(work) as server:
        for name, shape in SHAPES.items():
            print(name, end=": ", flush=True)
            measure(server, *shape)
