-- One row per agent that either folder names. If the two disagree on `deactivated`, the newer record decides; of two
-- of the same age, the one that says true.
SELECT
    coalesce(master.agent_id, listed.agent_id) AS agent_id,
    master.agent_id IS NOT NULL AS is_in_master,
    listed.agent_id IS NOT NULL AS is_listed,
    coalesce(master.is_rejected, listed.is_rejected) AS is_rejected,
    coalesce(master.is_valid, false) OR coalesce(listed.is_valid, false) AS is_valid,
    CASE
        WHEN master.updated_at > listed.updated_at THEN coalesce(master.deactivated, listed.deactivated)
        WHEN master.updated_at < listed.updated_at THEN coalesce(listed.deactivated, master.deactivated)
        ELSE coalesce(master.deactivated, false) OR coalesce(listed.deactivated, false)
    END AS says_deactivated,
    coalesce(master.states_availability, false) OR coalesce(listed.states_availability, false) AS states_availability,
    coalesce(master.states_group_ids, false) OR coalesce(listed.states_group_ids, false) AS states_group_ids,
    coalesce(master.states_role_ids, false) OR coalesce(listed.states_role_ids, false) AS states_role_ids
FROM agent_details_stated AS master
FULL JOIN agents_stated AS listed ON listed.agent_id = master.agent_id;
