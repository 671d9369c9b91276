"""The agents pipeline: the master list and the roster of the day become agents and what hangs on them."""

from deskroll.contract import BIGINT, BOOLEAN, KEY, TEXT, TEXT_OR_AVATAR, TIMESTAMP, Contract, column, ids
from deskroll.pipelines.pipeline import Pipeline, Source, Staging
from deskroll.postgres.guard import Guard
from deskroll.postgres.publish import Publication

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

_ROSTER = Contract("agents", _AGENT, key="agent_id", newest="updated_at")

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

_MASTER_LIST = Contract(
    "agent_details",
    (
        *_AGENT,
        column("org_agent_id", TEXT),
        column("ticket_scope", TEXT),
        column("signature", TEXT),
        column("freshchat_agent", BOOLEAN),
        column("is_active", BOOLEAN, "contact.active", "active"),
        column("avatar", TEXT_OR_AVATAR, "contact.avatar", "avatar"),
        column("last_login_at", TIMESTAMP, "contact.last_login_at", "last_login_at"),
    ),
    key="agent_id",
    newest="updated_at",
    lists=(_AVAILABILITY, _GROUP_IDS, _ROLE_IDS),
)

MASTER_LIST = Source("agent_details", "agents", _MASTER_LIST)
ROSTER = Source("agents", "agents", _ROSTER, absent="the master list is taken for the roster")

_VALUES = [f for f in _AGENT if f.name != "deactivated"]
_COLUMNS = ", ".join(f.name for f in _VALUES)
_UNKNOWN = ", ".join(f.name if f.name == "agent_id" else f"CAST(NULL AS {f.type.sql})" for f in _VALUES)

# One row per agent that the day speaks of. `deactivated` is NULL where the day cannot tell: an agent that is not on a
# roster of which a file could not be read. `is_rejected`: the agent's own record was rejected, so that what is stored
# stays as it is; the row still says that the agent is there, and carries the roster's values for one not yet known.
_STG_AGENTS = f"""WITH listed AS (
    SELECT DISTINCT agent_id FROM agents_checked WHERE agent_id IS NOT NULL
), rejected AS (
    SELECT DISTINCT agent_id FROM agent_details_checked ANTI JOIN agent_details_valid USING (agent_id)
    WHERE agent_id IS NOT NULL
), named AS (
    SELECT {_COLUMNS}, deactivated, false AS is_rejected FROM agent_details_valid
    UNION ALL
    SELECT {_COLUMNS}, deactivated, rejected.agent_id IS NOT NULL AS is_rejected
    FROM agents_valid ANTI JOIN agent_details_valid USING (agent_id) LEFT JOIN rejected USING (agent_id)
), unnamed AS (
    SELECT agent_id FROM (SELECT agent_id FROM listed UNION SELECT agent_id FROM rejected)
    ANTI JOIN named USING (agent_id)
), roster AS (
    SELECT found AS is_found, complete AS is_complete FROM folders WHERE name = 'agents'
)
SELECT {_COLUMNS},
    CASE
        WHEN named.deactivated THEN true
        WHEN listed.agent_id IS NOT NULL OR NOT roster.is_found THEN false
        WHEN roster.is_complete THEN true
    END AS deactivated,
    is_rejected, sync.sync_day, sync.source
FROM named LEFT JOIN listed USING (agent_id) CROSS JOIN roster CROSS JOIN sync
UNION ALL
SELECT {_UNKNOWN}, CAST(NULL AS BOOLEAN), true, sync.sync_day, sync.source FROM unnamed CROSS JOIN sync"""

_DETAILS = (
    "agent_id, org_agent_id, ticket_scope, signature, freshchat_agent, is_active, avatar, last_login_at,"
    " created_at, updated_at"
)

# A rejected element whose channel is readable keeps what is stored of that channel.
_STG_AVAILABILITY = """SELECT agent_id, channel, is_available, available_since, false AS is_rejected
FROM agent_details_availability_valid
UNION ALL
SELECT DISTINCT agent_id, channel, CAST(NULL AS BOOLEAN), CAST(NULL AS TIMESTAMPTZ), true
FROM agent_details_availability_checked ANTI JOIN agent_details_availability_valid USING (agent_id, channel)
WHERE error_type IS NOT NULL AND channel IS NOT NULL"""

AGENTS = Pipeline(
    sources=(MASTER_LIST, ROSTER),
    staging=(
        Staging("stg_agents", _STG_AGENTS),
        Staging("stg_agent_details", f"SELECT {_DETAILS} FROM agent_details_valid"),
        Staging("stg_agent_availability", _STG_AVAILABILITY),
        Staging("stg_agent_group_membership", "SELECT agent_id, group_id FROM agent_details_group_ids_valid"),
    ),
    publication=Publication(
        pipeline="agents",
        file="010_upsert_agents.sql",
        errors="agent_pipeline_errors",
        feeds={
            "agents": ("agent_details", "agents"),
            "agent_details": ("agent_details",),
            "agent_availability": ("agent_details.availability",),
            "agent_group_membership": ("agent_details.group_ids",),
            "agent_status_history": (),
        },
        changes="stg_agent_changes",
        key=("agent_id",),
        who="SELECT name || ' <' || email || '>' FROM agents WHERE agent_id = %s",
        guards=(
            Guard(
                "active agents",
                known="SELECT count(*) FROM agents WHERE NOT deactivated",
                lost="SELECT count(*) FROM stg_agent_changes WHERE change IN ('deactivated', 'missing')",
                sources=("agent_details", "agents"),
            ),
            Guard(
                "inactive agents",
                known="SELECT count(*) FROM agents WHERE deactivated",
                lost="SELECT count(*) FROM stg_agent_changes WHERE change = 'reactivated'",
                would="come back",
            ),
            Guard(
                "memberships of agents in groups",
                known="SELECT count(*) FROM agent_group_membership",
                lost="SELECT n_tup_del FROM pg_stat_xact_user_tables WHERE relid = 'agent_group_membership'::REGCLASS",
            ),
        ),
    ),
    facts=(
        ("active agents", "SELECT count(*) FROM agents WHERE NOT deactivated"),
        ("inactive agents", "SELECT count(*) FROM agents WHERE deactivated"),
    ),
)
