"""The agents pipeline: the master list and the roster of the day become agents and what hangs on them."""

from dataclasses import replace

from deskroll.pipelines.selects import read_select
from deskroll.spec.contract import BIGINT, BOOLEAN, KEY, TEXT, TEXT_OR_AVATAR, TIMESTAMP, Contract, column, ids, states
from deskroll.spec.pipeline import (
    Event,
    Guard,
    Input,
    Pipeline,
    Publication,
    Relation,
    StagingTable,
    Tracked,
    membership,
    pairs,
)

# The fields of the roster; the master list carries them too, and more.
_AGENT = (
    column("agent_id", BIGINT, "id", required=True),
    column("email", TEXT, "contact.email", "email", required=True),
    column("name", TEXT, "contact.name", "name", required=True),
    column("job_title", TEXT, "contact.job_title", "job_title"),
    column("language", TEXT, "contact.language", "language"),
    column("mobile", TEXT, "contact.mobile", "mobile"),
    column("phone", TEXT, "contact.phone", "phone"),
    column("time_zone", TEXT, "contact.time_zone", "time_zone"),
    column("available", BOOLEAN),
    column("deactivated", BOOLEAN),
    column("focus_mode", BOOLEAN),
    column("agent_operational_status", TEXT),
    column("last_active_at", TIMESTAMP),
    column("created_at", TIMESTAMP),
    column("updated_at", TIMESTAMP),
)

_AVAILABILITY = Contract(
    "availability",
    (
        column("channel", KEY, required=True),
        column("is_available", BOOLEAN, "available"),
        column("available_since", TIMESTAMP),
    ),
    key="channel",
)

_GROUP_IDS = ids("group_ids", "group_id")

ROLE_IDS = ids("role_ids", "role_id")

# Both folders may carry the lists of an agent.
_ROSTER = Contract(
    "agents",
    _AGENT,
    key="agent_id",
    version_by="updated_at",
    lists=(_AVAILABILITY, _GROUP_IDS, ROLE_IDS),
    salvaged=("deactivated",),
    alias="email",
)

_MASTER_LIST = replace(
    _ROSTER,
    name="agent_details",
    fields=(
        *_AGENT,
        column("org_agent_id", TEXT),
        column("ticket_scope", TEXT),
        column("signature", TEXT),
        column("freshchat_agent", BOOLEAN),
        column("is_active", BOOLEAN, "contact.active", "active"),
        column("avatar", TEXT_OR_AVATAR, "contact.avatar", "avatar"),
        column("last_login_at", TIMESTAMP, "contact.last_login_at", "last_login_at"),
    ),
)

MASTER_LIST = Input("agent_details", "agents", _MASTER_LIST)
ROSTER = Input("agents", "agents", _ROSTER, absent="deskroll uses the master list as the roster", must_return=True)


def _stated(input_: Input) -> Relation:
    """What a folder says of each agent that it names: one row an agent.

    `is_rejected`: its newest record was, as far as can be told. `is_valid`: it has a valid one. `states_…`: that one
    has the list.
    """
    lists = ",\n    ".join(f"{states(f'valid.{item.name}')} AS states_{item.name}" for item in input_.contract.lists)
    return Relation(
        f"{input_.folder}_stated",
        f"""SELECT
    coalesce(valid.agent_id, bad.agent_id) AS agent_id,
    coalesce(valid.is_superseded, true) AS is_rejected,
    valid.agent_id IS NOT NULL AS is_valid,
    CASE WHEN coalesce(valid.is_superseded, true) THEN coalesce(bad.deactivated, valid.deactivated)
        ELSE valid.deactivated END AS deactivated,
    CASE WHEN coalesce(valid.is_superseded, true) THEN bad.updated_at ELSE valid.updated_at END AS updated_at,
    {lists}
FROM {input_.relation("valid")} AS valid
FULL JOIN {input_.relation("rejected")} AS bad ON bad.agent_id = valid.agent_id""",
    )


def elements(item: Contract, state: str = "valid") -> Relation:
    """The elements of a list, of each agent from the first folder that has its list: the master list's."""
    return Relation(
        f"agent_{item.name}_{state}",
        f"""SELECT * FROM {MASTER_LIST.relation(state, item)}
UNION ALL
SELECT * FROM {ROSTER.relation(state, item)} ANTI JOIN (
    SELECT agent_id FROM agent_details_valid WHERE {states(item.name)}
) USING (agent_id)""",
    )


# What the pipelines of agents and of their roles both go by.
NAMED_AGENTS = (_stated(MASTER_LIST), _stated(ROSTER), Relation("named_agents", read_select("named_agents")))

# A rejected element whose channel is readable keeps what is stored of that channel.
_STG_AVAILABILITY = """SELECT agent_id, channel, is_available, available_since, false AS is_rejected
FROM agent_availability_valid
UNION ALL
SELECT DISTINCT agent_id, channel, CAST(NULL AS BOOLEAN), CAST(NULL AS TIMESTAMPTZ), true
FROM agent_availability_rejected ANTI JOIN agent_availability_valid USING (agent_id, channel)"""

# What a backfill changes in the history: no table of values shows it.
_HISTORY_CHANGED = """SELECT change.agent_id::TEXT, agent.name || ' <' || agent.email || '>',
    jsonb_build_object('is_active', change.deactivated), jsonb_build_object('is_active', NOT change.deactivated)
FROM stg_agent_changes AS change JOIN agents AS agent ON agent.agent_id = change.agent_id
WHERE change.change = 'history changed'"""

_MEMBERSHIP = """SELECT format('%1$s (%2$s): %3$s', agent.name, agent.agent_id, coalesce(one.name, pair.group_id::TEXT))
FROM (SELECT %s AS agent_id, %s AS group_id) AS pair
JOIN agents AS agent ON agent.agent_id = pair.agent_id
LEFT JOIN groups AS one ON one.group_id = pair.group_id"""

AGENTS = Pipeline(
    inputs=(MASTER_LIST, ROSTER),
    relations=(
        *NAMED_AGENTS,
        elements(_AVAILABILITY),
        elements(_AVAILABILITY, "rejected"),
        elements(_GROUP_IDS),
    ),
    staging=(
        StagingTable("stg_agents", read_select("stg_agents")),
        StagingTable("stg_agent_details", read_select("stg_agent_details")),
        StagingTable("stg_agent_availability", _STG_AVAILABILITY),
        StagingTable("stg_agent_group_membership", "SELECT agent_id, group_id FROM agent_group_ids_valid"),
    ),
    publication=Publication(
        "agents",
        file="010_upsert_agents.sql",
        tables={
            "agents": ("agent_details", "agents"),
            "agent_details": ("agent_details",),
            "agent_availability": ("agent_details.availability", "agents.availability"),
            "agent_group_membership": ("agent_details.group_ids", "agents.group_ids"),
        },
        key=("agent_id",),
        deactivating=("deactivated", "missing"),
        untold=("activity",),
        ledger_notes={"held back": "{count} active agent{s} not deactivated because the input is incomplete"},
        label_sql="SELECT name || ' <' || email || '>' FROM agents WHERE agent_id = %s",
        tracked=(
            Tracked(
                "agents",
                (
                    "email",
                    "name",
                    "job_title",
                    "language",
                    "mobile",
                    "phone",
                    "time_zone",
                    "focus_mode",
                    "agent_operational_status",
                    "created_at",
                    "status",
                ),
                changes=("added", "missing", "deactivated", "reactivated", "changed"),
            ),
            Tracked(
                "agent_details", ("org_agent_id", "ticket_scope"), changes=("details changed",), told_by="agent_details"
            ),
            pairs("agent_group_membership", ("agent_id", "group_id"), "membership", _MEMBERSHIP),
        ),
        events=(Event("history changed", _HISTORY_CHANGED),),
        guards=(
            Guard(
                "active agents", "be deactivated", folders=("agent_details", "agents"), roster="agents", among="agents"
            ),
            Guard("inactive agents", "become active again"),
            Guard("memberships of agents in groups", "be removed", label_sql=membership("leave", "groups")),
            Guard("agents", "be added", is_gain=True, is_noted=True),
            Guard(
                "memberships of agents in groups",
                "be added",
                label_sql=membership("join", "groups"),
                is_gain=True,
                is_noted=True,
            ),
        ),
    ),
    facts=(
        ("active agents", "SELECT count(*) FROM agents WHERE NOT deactivated"),
        ("inactive agents", "SELECT count(*) FROM agents WHERE deactivated"),
    ),
)
