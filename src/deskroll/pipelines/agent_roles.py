"""The agent_roles pipeline: what agents and roles say of each other today, against what was known, as transitions."""

from deskroll.pipelines.agents import MASTER_LIST, ROSTER
from deskroll.pipelines.pipeline import Pipeline, Staging
from deskroll.pipelines.roles import ADMIN_ROLES
from deskroll.postgres.guard import Guard, membership
from deskroll.postgres.known import Known
from deskroll.postgres.publish import Publication

# A pair that was assigned and that nobody says today is removed where everybody who said it before says no, and nobody
# may still say yes. The agent says no by a valid record of its own, or by being gone: in no folder, all that there are
# complete. It is silent where the day has no master list, and unsure where its record was rejected, may stand in an
# unreadable file, or is missing while the roster lists the agent. The role says no by a valid record, or by having none
# in a folder that has others; it is silent where the folder is not there, or empty, and else unsure.
_STG_AGENT_ROLES = """WITH said AS (
    SELECT agent_id, role_id, 1 AS by_agent, 0 AS by_role, source_file, record_index
    FROM agent_details_role_ids_valid
    UNION ALL
    SELECT agent_id, role_id, 0, 1, source_file, record_index FROM admin_roles_agent_ids_valid
), once AS (
    SELECT agent_id, role_id, source_file, record_index,
        max(by_agent) OVER (PARTITION BY agent_id, role_id) AS by_agent,
        max(by_role) OVER (PARTITION BY agent_id, role_id) AS by_role,
        row_number() OVER (PARTITION BY agent_id, role_id ORDER BY source_file DESC) AS nth
    FROM said
), details AS (
    SELECT found, complete FROM folders WHERE name = 'agent_details'
), roster AS (
    SELECT found, complete FROM folders WHERE name = 'agents'
), admin AS (
    SELECT complete, (SELECT count(*) FROM admin_roles_checked) AS records FROM folders WHERE name = 'admin_roles'
), own AS (
    SELECT agent_id, count(CASE WHEN error_type IS NULL THEN 1 END) AS valid
    FROM agent_details_checked WHERE agent_id IS NOT NULL GROUP BY agent_id
), listed AS (
    SELECT agent_id, count(*) AS times FROM agents_checked WHERE agent_id IS NOT NULL GROUP BY agent_id
), role AS (
    SELECT role_id, count(CASE WHEN error_type IS NULL THEN 1 END) AS valid
    FROM admin_roles_checked WHERE role_id IS NOT NULL GROUP BY role_id
), sides AS (
    SELECT assigned.agent_id, assigned.role_id, assigned.by_agent, assigned.by_role,
        CASE
            WHEN own.valid > 0 THEN 'no'
            WHEN own.valid IS NULL AND listed.times IS NULL AND (details.found OR roster.found)
                AND details.complete AND roster.complete THEN 'gone'
            WHEN NOT details.found THEN 'silent'
            ELSE 'unsure'
        END AS agent_says,
        CASE
            WHEN role.valid > 0 THEN 'no'
            WHEN role.valid IS NULL AND admin.complete THEN CASE WHEN admin.records > 0 THEN 'no' ELSE 'silent' END
            ELSE 'unsure'
        END AS role_says
    FROM (SELECT assigned.* FROM assigned ANTI JOIN said USING (agent_id, role_id)) AS assigned
    LEFT JOIN own USING (agent_id)
    LEFT JOIN listed USING (agent_id)
    LEFT JOIN role USING (role_id)
    CROSS JOIN details CROSS JOIN roster CROSS JOIN admin
)
SELECT agent_id, role_id, 'assigned' AS status, by_agent = 1 AS said_by_agent, by_role = 1 AS said_by_role,
    source_file, record_index, sync.sync_day, sync.source
FROM once CROSS JOIN sync WHERE nth = 1
UNION ALL
SELECT agent_id, role_id, 'removed', by_agent = 1, by_role = 1, CAST(NULL AS VARCHAR), CAST(NULL AS BIGINT),
    sync.sync_day, sync.source
FROM sides CROSS JOIN sync
WHERE agent_says <> 'unsure' AND role_says <> 'unsure'
    AND (by_agent = 0 OR agent_says IN ('no', 'gone'))
    AND (by_role = 0 OR role_says = 'no' OR agent_says = 'gone')"""

_ASSIGNED = "SELECT count(*) FROM agent_role_mapping WHERE status = 'assigned'"

AGENT_ROLES = Pipeline(
    sources=(MASTER_LIST, ROSTER, ADMIN_ROLES),
    known=(
        Known(
            "assigned",
            "agent_role_mapping",
            {
                "agent_id": "agent_id",
                "role_id": "role_id",
                "by_agent": "said_by_agent::INT",
                "by_role": "said_by_role::INT",
            },
            where="status = 'assigned'",
        ),
    ),
    staging=(Staging("stg_agent_roles", _STG_AGENT_ROLES),),
    publication=Publication(
        pipeline="agent_roles",
        file="012_upsert_agent_roles.sql",
        errors="agent_role_pipeline_errors",
        feeds={
            "agent_role_mapping": ("agent_details.role_ids", "admin_roles.agent_ids"),
            "agent_role_history": (),
        },
        stages={"agent_role_mapping": "stg_agent_roles"},
        changes="stg_agent_role_changes",
        key=("agent_id", "role_id"),
        who="""SELECT agent.name || ': ' || role.name FROM agents AS agent CROSS JOIN roles AS role
        WHERE agent.agent_id = %s AND role.role_id = %s""",
        guards=(
            Guard("role assignments", "be removed", who=membership("lose", "roles")),
            Guard("role assignments", "be added", who=membership("get", "roles"), is_gain=True),
        ),
    ),
    facts=(("roles assigned to agents", _ASSIGNED),),
)
