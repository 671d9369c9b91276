-- The name of each card holder. A person may go by several names in a day: the one that was used last counts.
WITH named AS (
    SELECT coalesce(user_id, user_uuid) AS user_id, user_uuid, user_name, ordered_time
    FROM transactions_valid
    WHERE coalesce(user_id, user_uuid) IS NOT NULL AND user_name IS NOT NULL
),

used AS (
    SELECT user_id, user_name, max(user_uuid) AS user_uuid, max(ordered_time) AS updated_time
    FROM named
    GROUP BY user_id, user_name
),

ranked AS (
    SELECT
        user_id,
        user_name,
        updated_time,
        max(user_uuid) OVER (PARTITION BY user_id) AS user_uuid,
        row_number() OVER (PARTITION BY user_id ORDER BY updated_time DESC NULLS LAST, user_name DESC) AS nth
    FROM used
)

SELECT user_id, user_uuid, user_name, updated_time FROM ranked WHERE nth = 1;
