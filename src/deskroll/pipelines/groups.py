"""The groups pipeline: groups, their members, and which of them have anyone left."""

from deskroll.spec.contract import BIGINT, TEXT, TIMESTAMP, Contract, column, ids, states
from deskroll.spec.pipeline import (
    Discrepancy,
    Guard,
    Input,
    Pipeline,
    Publication,
    StagingTable,
    Tracked,
    membership,
    pairs,
)

_AGENT_IDS = ids("agent_ids", "agent_id")

_GROUP = (
    column("group_id", BIGINT, "id", required=True),
    column("name", TEXT, required=True),
    column("parent_group_id", BIGINT),
    column("created_at", TIMESTAMP),
    column("updated_at", TIMESTAMP),
)

_GROUPS = Contract("groups", _GROUP, key="group_id", version_by="updated_at", lists=(_AGENT_IDS,), alias="name")

# A group whose newest record was rejected is there, and what is stored of it stays; the row carries the values of an
# older record, if there is one, for a group that is not yet known.
_STG_GROUPS = f"""SELECT {", ".join(f.name for f in _GROUP)}, source_file, record_index, is_superseded AS is_rejected,
    {states("agent_ids")} AS states_members
FROM admin_groups_valid
UNION ALL
SELECT group_id, CAST(NULL AS VARCHAR), CAST(NULL AS BIGINT), CAST(NULL AS TIMESTAMPTZ),
    CAST(NULL AS TIMESTAMPTZ), CAST(NULL AS VARCHAR), CAST(NULL AS BIGINT), true, false
FROM admin_groups_rejected ANTI JOIN admin_groups_valid USING (group_id)"""

_MEMBERS = "SELECT group_id, agent_id, source_file, record_index FROM admin_groups_agent_ids_valid"

# The same fact, stated twice: by the agent's own record, and by the group's.
_ONE_SIDED = """SELECT 'memberships that only the {} states', count(*),
    (array_agg(here.group_id || ' ' || here.agent_id ORDER BY here.group_id, here.agent_id))[:3]
FROM {} AS here
LEFT JOIN {} AS there ON there.agent_id = here.agent_id AND there.group_id = here.group_id
WHERE there.agent_id IS NULL"""

_MEMBER = """SELECT format('%1$s: %2$s (%3$s)', one.name, agent.name, agent.agent_id)
FROM (SELECT %s AS group_id, %s AS agent_id) AS pair
JOIN groups AS one ON one.group_id = pair.group_id
JOIN agents AS agent ON agent.agent_id = pair.agent_id"""

GROUPS = Pipeline(
    inputs=(Input("admin_groups", "groups", _GROUPS),),
    staging=(StagingTable("stg_groups", _STG_GROUPS), StagingTable("stg_group_membership", _MEMBERS)),
    publication=Publication(
        "groups",
        file="020_upsert_groups.sql",
        tables={"groups": ("admin_groups",), "group_membership": ("admin_groups.agent_ids",)},
        key=("group_id",),
        deactivating=("inactivated",),
        tracked=(
            Tracked(
                "groups",
                ("name", "parent_group_id", "source_parent_group_id", "created_at", "inactive"),
                changes=("added", "inactivated", "activated", "changed"),
            ),
            pairs("group_membership", ("group_id", "agent_id"), "member", _MEMBER),
        ),
        refresh_sql="SELECT deskroll_link_group_members(), deskroll_mark_inactive_groups()",
        guards=(
            Guard("members of groups", "be removed", label_sql=membership("leave", "groups")),
            Guard("members of groups", "be added", label_sql=membership("join", "groups"), is_gain=True, is_noted=True),
            Guard(
                "parents of groups",
                "be lost",
                label_sql="SELECT format('%%s (%%s)', left(name, 60), group_id) FROM groups WHERE group_id = %(id)s",
            ),
        ),
        discrepancies=(
            Discrepancy(_ONE_SIDED.format("agent", "agent_group_membership", "group_membership")),
            Discrepancy(_ONE_SIDED.format("group", "group_membership", "agent_group_membership")),
        ),
    ),
    facts=(
        ("active groups", "SELECT count(*) FROM groups WHERE NOT inactive"),
        ("inactive groups", "SELECT count(*) FROM groups WHERE inactive"),
    ),
)
