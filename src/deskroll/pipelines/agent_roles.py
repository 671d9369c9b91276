"""The agent_roles pipeline: what agents and roles say of each other today, against what was known, as transitions."""

from collections.abc import Mapping
from typing import Literal

from deskroll.pipelines.agents import MASTER_LIST, NAMED_AGENTS, ROLE_IDS, ROSTER, elements
from deskroll.pipelines.roles import ADMIN_ROLES
from deskroll.pipelines.selects import read_select
from deskroll.spec.pipeline import (
    Guard,
    Pipeline,
    Publication,
    Relation,
    Snapshot,
    StagingTable,
    Tracked,
    membership,
)

_PAIR: Mapping[str, tuple[Literal["BIGINT"], str]] = {
    "agent_id": ("BIGINT", "agent_id"),
    "role_id": ("BIGINT", "role_id"),
    "by_agent": ("BIGINT", "stated_by_agent::INT"),
    "by_role": ("BIGINT", "stated_by_role::INT"),
}

_ASSIGNED = "SELECT count(*) FROM agent_role_mapping WHERE status = 'assigned'"

AGENT_ROLES = Pipeline(
    inputs=(MASTER_LIST, ROSTER, ADMIN_ROLES),
    relations=(
        *NAMED_AGENTS,
        elements(ROLE_IDS),
        Relation("agent_sides", read_select("agent_sides")),
        Relation("role_sides", read_select("role_sides")),
    ),
    snapshots=(
        Snapshot("assigned", "agent_role_mapping", _PAIR, where="status = 'assigned'"),
        Snapshot("waiting", "unlinked_agent_roles", _PAIR),
        Snapshot("known_agents", "agents", {"agent_id": ("BIGINT", "agent_id"), "as_of": ("DATE", "as_of")}),
    ),
    staging=(
        StagingTable("stg_agent_roles", read_select("stg_agent_roles")),
        StagingTable("stg_agent_role_sides", read_select("stg_agent_role_sides")),
    ),
    publication=Publication(
        "agent_roles",
        file="012_upsert_agent_roles.sql",
        tables={"agent_role_mapping": ("agent_details.role_ids", "agents.role_ids", "admin_roles.agent_ids")},
        staging_tables={"agent_role_mapping": "stg_agent_roles"},
        key=("agent_id", "role_id"),
        label_sql="""SELECT agent.name || ': ' || role.name FROM agents AS agent CROSS JOIN roles AS role
        WHERE agent.agent_id = %s AND role.role_id = %s""",
        tracked=(Tracked("agent_role_mapping", ("status",), changes=("assigned", "removed", "history changed")),),
        refresh_sql="SELECT deskroll_link_agent_roles()",
        guards=(
            Guard("role assignments", "be removed", label_sql=membership("lose", "roles")),
            Guard("role assignments", "be added", label_sql=membership("get", "roles"), is_gain=True),
        ),
    ),
    facts=(("roles assigned to agents", _ASSIGNED),),
)
