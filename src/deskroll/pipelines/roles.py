"""The roles pipeline: the roles of the day, from either folder that carries them."""

from dataclasses import replace

from deskroll.spec.contract import BIGINT, BOOLEAN, INTEGER, TEXT, TIMESTAMP, Contract, column, ids, supersedes
from deskroll.spec.pipeline import Input, Pipeline, Publication, StagingTable, Tracked

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

_CONTRACT = Contract("roles", _ROLE, key="role_id", version_by="updated_at", alias="name")
_ROLES = Input("roles", "roles", _CONTRACT)
ADMIN_ROLES = Input("admin_roles", "roles", replace(_CONTRACT, name="admin_roles", lists=(_AGENT_IDS,)), absent="")

_COLUMNS = ", ".join(f.name for f in _ROLE)

# A role may stand in both folders: the newest record wins, then that of roles/. `is_rejected`: a rejected record may be
# newer, so that what is stored of the role stays.
_STG_ROLES = f"""WITH valid AS (
    SELECT * EXCLUDE (nth) FROM (
        SELECT *, row_number() OVER (
            PARTITION BY role_id ORDER BY updated_at DESC NULLS LAST, source_file DESC
        ) AS nth
        FROM (
            SELECT {_COLUMNS}, source_file, record_index FROM roles_valid
            UNION ALL
            SELECT {_COLUMNS}, source_file, record_index FROM admin_roles_valid
        )
    ) WHERE nth = 1
), superseded AS (
    SELECT DISTINCT valid.role_id FROM valid JOIN (
        SELECT role_id, updated_at, source_file, record_index FROM roles_rejected
        UNION ALL
        SELECT role_id, updated_at, source_file, record_index FROM admin_roles_rejected
    ) AS bad ON bad.role_id = valid.role_id AND {supersedes(_CONTRACT, "bad", "valid")}
)
SELECT {_COLUMNS}, superseded.role_id IS NOT NULL AS is_rejected
FROM valid LEFT JOIN superseded USING (role_id)"""

ROLES = Pipeline(
    inputs=(_ROLES, ADMIN_ROLES),
    staging=(StagingTable("stg_roles", _STG_ROLES),),
    publication=Publication(
        "roles",
        file="011_upsert_roles.sql",
        tables={"roles": ("roles", "admin_roles")},
        key=("role_id",),
        tracked=(Tracked("roles", ("name", "description", "is_default", "agent_type", "created_at")),),
    ),
    facts=(("roles", "SELECT count(*) FROM roles"),),
)
