"""The roles pipeline: the roles of the day, from either folder that carries them."""

from deskroll.contract import BIGINT, BOOLEAN, INTEGER, TEXT, TIMESTAMP, Contract, column, ids
from deskroll.pipelines.pipeline import Pipeline, Source, Staging
from deskroll.postgres.publish import Publication

_ROLE = (
    column("role_id", BIGINT, "id", required=True),
    column("name", TEXT, required=True),
    column("description", TEXT),
    column("is_default", BOOLEAN, "default"),
    column("agent_type", INTEGER),
    column("created_at", TIMESTAMP),
    column("updated_at", TIMESTAMP),
)

_AGENT_IDS = ids("agent_ids", "agent_id")

_ROLES = Source("roles", "roles", Contract("roles", _ROLE, key="role_id", newest="updated_at"))
ADMIN_ROLES = Source(
    "admin_roles",
    "roles",
    Contract("admin_roles", _ROLE, key="role_id", newest="updated_at", lists=(_AGENT_IDS,)),
    absent="",
)

_COLUMNS = ", ".join(f.name for f in _ROLE)

# A role may stand in both folders: the newest record wins, then that of roles/.
_STG_ROLES = f"""SELECT {_COLUMNS}
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY role_id ORDER BY updated_at DESC NULLS LAST, source_file DESC
    ) AS nth
    FROM (
        SELECT {_COLUMNS}, source_file FROM roles_valid
        UNION ALL
        SELECT {_COLUMNS}, source_file FROM admin_roles_valid
    )
)
WHERE nth = 1"""

ROLES = Pipeline(
    sources=(_ROLES, ADMIN_ROLES),
    staging=(Staging("stg_roles", _STG_ROLES),),
    publication=Publication(
        pipeline="roles",
        file="011_upsert_roles.sql",
        errors="role_pipeline_errors",
        feeds={"roles": ("roles", "admin_roles")},
        changes="stg_role_changes",
        key=("role_id",),
        who="SELECT name FROM roles WHERE role_id = %s",
    ),
    facts=(("roles", "SELECT count(*) FROM roles"),),
)
