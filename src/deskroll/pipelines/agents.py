"""The agents pipeline: the master list and the roster of the day become agents and what hangs on them."""

from dataclasses import replace

from deskroll.spec.contract import BIGINT, BOOLEAN, KEY, TEXT, TEXT_OR_AVATAR, TIMESTAMP, Contract, column, ids, states
from deskroll.spec.pipeline import Guard, Pipeline, Publication, Source, Staging, membership

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

_ROLE_IDS = ids("role_ids", "role_id")

# Both folders may carry the lists of an agent.
_ROSTER = Contract(
    "agents",
    _AGENT,
    key="agent_id",
    newest="updated_at",
    lists=(_AVAILABILITY, _GROUP_IDS, _ROLE_IDS),
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

MASTER_LIST = Source("agent_details", "agents", _MASTER_LIST)
ROSTER = Source("agents", "agents", _ROSTER, absent="the master list is taken for the roster")

_VALUES = [f for f in _AGENT if f.name != "deactivated"]
_COLUMNS = ", ".join(f.name for f in _VALUES)
_UNKNOWN = ", ".join(f.name if f.name == "agent_id" else f"CAST(NULL AS {f.type.sql})" for f in _VALUES)


def _statements(source: Source) -> str:
    """Select what a folder says of each agent that it names: one row an agent.

    `is_rejected`: its newest record was, as far as can be told. `is_valid`: it has a valid one. `states_…`: that one
    has the list.
    """
    stated = ", ".join(f"{states(f'valid.{item.name}')} AS states_{item.name}" for item in source.contract.lists)
    return f"""SELECT coalesce(valid.agent_id, bad.agent_id) AS agent_id,
        coalesce(valid.is_superseded, true) AS is_rejected, valid.agent_id IS NOT NULL AS is_valid,
        CASE WHEN coalesce(valid.is_superseded, true) THEN coalesce(bad.deactivated, valid.deactivated)
            ELSE valid.deactivated END AS deactivated,
        CASE WHEN coalesce(valid.is_superseded, true) THEN bad.updated_at ELSE valid.updated_at END AS updated_at,
        {stated}
    FROM {source.valid} AS valid FULL JOIN {source.rejected} AS bad ON bad.agent_id = valid.agent_id"""


def _either(column: str) -> str:
    return f"coalesce(master.{column}, false) OR coalesce(listed.{column}, false)"


# One row per agent that either folder names. If they disagree on `deactivated`, the newer record decides, and of two of
# one age the one that says true.
NAMED_AGENTS = f"""SELECT coalesce(master.agent_id, listed.agent_id) AS agent_id,
    master.agent_id IS NOT NULL AS is_in_master,
    listed.agent_id IS NOT NULL AS is_listed,
    coalesce(master.is_rejected, listed.is_rejected) AS is_rejected,
    {_either("is_valid")} AS is_valid,
    CASE
        WHEN master.updated_at > listed.updated_at THEN coalesce(master.deactivated, listed.deactivated)
        WHEN master.updated_at < listed.updated_at THEN coalesce(listed.deactivated, master.deactivated)
        ELSE {_either("deactivated")}
    END AS says_deactivated,
    {", ".join(f"{_either(f'states_{item.name}')} AS states_{item.name}" for item in _ROSTER.lists)}
FROM ({_statements(MASTER_LIST)}) AS master
FULL JOIN ({_statements(ROSTER)}) AS listed ON listed.agent_id = master.agent_id"""

# `deactivated` is NULL if the day cannot tell: the agent is not on an incomplete roster. `is_rejected`: what is stored
# of the agent stays; the row carries values for an agent that is not yet known.
_STG_AGENTS = f"""WITH named AS (
    {NAMED_AGENTS}
), loaded AS (
    SELECT {_COLUMNS} FROM agent_details_valid
    UNION ALL
    SELECT {_COLUMNS} FROM agents_valid ANTI JOIN agent_details_valid USING (agent_id)
    UNION ALL
    SELECT {_UNKNOWN}
    FROM named ANTI JOIN agent_details_valid USING (agent_id) ANTI JOIN agents_valid USING (agent_id)
), roster AS (
    SELECT found AS is_found, complete AS is_complete FROM folders WHERE name = 'agents'
)
SELECT {_COLUMNS},
    CASE
        WHEN says_deactivated THEN true
        WHEN is_listed OR (is_complete AND NOT is_found) THEN false
        WHEN is_complete THEN true
    END AS deactivated,
    is_rejected, states_availability, states_group_ids AS states_groups, sync.sync_day, sync.source
FROM loaded JOIN named USING (agent_id) CROSS JOIN roster CROSS JOIN sync"""

_DETAILS = (
    "agent_id, org_agent_id, ticket_scope, signature, freshchat_agent, is_active, avatar, last_login_at,"
    " created_at, updated_at"
)


def elements(name: str, columns: str, of: str = "valid") -> str:
    """Select the elements of a list, of each agent from the first folder that has its list: the master list's."""
    return f"""SELECT {columns} FROM agent_details_{name}_{of}
    UNION ALL
    SELECT {columns} FROM agents_{name}_{of} ANTI JOIN (
        SELECT agent_id FROM agent_details_valid WHERE {states(name)}
    ) USING (agent_id)"""


# A rejected element whose channel is readable keeps what is stored of that channel.
_STG_AVAILABILITY = f"""WITH valid AS (
    {elements("availability", "agent_id, channel, is_available, available_since")}
)
SELECT agent_id, channel, is_available, available_since, false AS is_rejected FROM valid
UNION ALL
SELECT DISTINCT agent_id, channel, CAST(NULL AS BOOLEAN), CAST(NULL AS TIMESTAMPTZ), true
FROM ({elements("availability", "agent_id, channel", "checked_rejected")}) ANTI JOIN valid USING (agent_id, channel)"""

AGENTS = Pipeline(
    sources=(MASTER_LIST, ROSTER),
    staging=(
        Staging("stg_agents", _STG_AGENTS),
        Staging("stg_agent_details", f"SELECT {_DETAILS} FROM agent_details_valid"),
        Staging("stg_agent_availability", _STG_AVAILABILITY),
        Staging("stg_agent_group_membership", elements("group_ids", "agent_id, group_id")),
    ),
    publication=Publication(
        pipeline="agents",
        file="010_upsert_agents.sql",
        errors="agent_pipeline_errors",
        feeds={
            "agents": ("agent_details", "agents"),
            "agent_details": ("agent_details",),
            "agent_availability": ("agent_details.availability", "agents.availability"),
            "agent_group_membership": ("agent_details.group_ids", "agents.group_ids"),
            "agent_status_history": (),
        },
        changes="stg_agent_changes",
        key=("agent_id",),
        who="SELECT name || ' <' || email || '>' FROM agents WHERE agent_id = %s",
        guards=(
            Guard("active agents", "be deactivated", folders=("agent_details", "agents"), roster="agents"),
            Guard("inactive agents", "become active again"),
            Guard("agents active on that date", "become inactive in the history"),
            Guard("agents inactive on that date", "become active in the history"),
            Guard("memberships of agents in groups", "be removed", who=membership("leave", "groups")),
            Guard("agents", "be added", is_gain=True, is_noted=True),
            Guard(
                "memberships of agents in groups",
                "be added",
                who=membership("join", "groups"),
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
