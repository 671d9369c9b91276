"""The usual way to do it on Spark, to compare with: multi-line JSON, JDBC overwrite of staging, then an upsert.

    python bench/baseline.py DAY_FOLDER DATABASE_URL

It checks nothing and keeps no state: no quarantine, nobody is ever deactivated, and one malformed file spoils its page.
It needs PostgreSQL's JDBC driver, where Debian's libpostgresql-jdbc-java has it.
"""

import os
import sys
from pathlib import Path

import psycopg
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

JDBC = Path("/usr/share/java/postgresql.jar")

UPSERT = """
CREATE TABLE IF NOT EXISTS usual_agents (LIKE usual_stg_agents, PRIMARY KEY (agent_id));
CREATE TABLE IF NOT EXISTS usual_groups (LIKE usual_stg_groups, PRIMARY KEY (agent_id, group_id));
CREATE TABLE IF NOT EXISTS usual_availability (LIKE usual_stg_availability, PRIMARY KEY (agent_id, channel));
INSERT INTO usual_agents SELECT * FROM usual_stg_agents ON CONFLICT (agent_id) DO UPDATE SET
    email = EXCLUDED.email, name = EXCLUDED.name, job_title = EXCLUDED.job_title, language = EXCLUDED.language,
    phone = EXCLUDED.phone, time_zone = EXCLUDED.time_zone, available = EXCLUDED.available,
    deactivated = EXCLUDED.deactivated, signature = EXCLUDED.signature, last_active_at = EXCLUDED.last_active_at,
    created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at;
INSERT INTO usual_groups SELECT * FROM usual_stg_groups ON CONFLICT DO NOTHING;
INSERT INTO usual_availability SELECT * FROM usual_stg_availability ON CONFLICT (agent_id, channel) DO UPDATE SET
    is_available = EXCLUDED.is_available, available_since = EXCLUDED.available_since;
"""


def main(day: str, url: str, jdbc: str) -> None:
    """Load one day."""
    builder = SparkSession.builder.master("local[2]").config("spark.jars", str(JDBC))
    for key, value in {"spark.ui.enabled": "false", "spark.log.level": "ERROR", "spark.driver.memory": "4g"}.items():
        builder = builder.config(key, value)
    spark = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    records = spark.read.option("multiLine", True).option("mode", "PERMISSIVE").json(f"{day}/agent_details")
    records = records.withColumn("agent_id", F.expr("try_cast(id AS BIGINT)")).where("agent_id IS NOT NULL")
    records = records.dropDuplicates(["agent_id"]).cache()
    contact = [F.col(f"contact.{name}") for name in ("email", "name", "job_title", "language", "phone", "time_zone")]
    moments = [
        F.expr(f"try_cast({name} AS TIMESTAMP) AS {name}") for name in ("last_active_at", "created_at", "updated_at")
    ]
    tables = {
        "usual_stg_agents": records.select("agent_id", *contact, "available", "deactivated", "signature", *moments),
        "usual_stg_groups": records.select("agent_id", F.explode("group_ids").alias("group"))
        .selectExpr("agent_id", "try_cast(group AS BIGINT) AS group_id").where("group_id IS NOT NULL").distinct(),
        "usual_stg_availability": records.select("agent_id", F.explode("availability").alias("one"))
        .selectExpr("agent_id", "one.channel", "one.available AS is_available",
                    "try_cast(one.available_since AS TIMESTAMP) AS available_since")
        .where("channel IS NOT NULL").dropDuplicates(["agent_id", "channel"]),
    }  # fmt: skip
    for table, rows in tables.items():
        rows.write.mode("overwrite").option("driver", "org.postgresql.Driver").jdbc(jdbc, table)
    with psycopg.connect(url) as connection:
        connection.execute(UPSERT)
    spark.stop()


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    main(*sys.argv[1:])
