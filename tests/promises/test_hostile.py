"""Any bytes: whatever a file holds, the run ends well, all else is loaded, and the counts add up."""

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from deskroll.input.dump import list_folder
from deskroll.input.files import Unreadable
from deskroll.input.json_reader import read_exactly
from deskroll.pipelines import PIPELINES
from tests.helpers import hostile
from tests.helpers.databases import Database
from tests.helpers.entities import ENTITIES
from tests.helpers.factories import Dump
from tests.helpers.runs import Shell, Sync, sync_into
from tests.helpers.torture import Torture
from tests.rules.test_model import empty

EVERY = hostile.every()
GOOD = {entity.folder: entity.good for entity in ENTITIES}
RESOURCE = {input_.folder: input_.resource for pipeline in PIPELINES for input_ in pipeline.inputs}
LOADED = {table: where for entity in ENTITIES for table, where in entity.loaded.items()}


def write_good(dump: Dump) -> None:
    for folder, record in GOOD.items():
        dump.write("day1", folder, [record], "~good.json")


def judge(db: Database, dump: Dump) -> None:
    """See that all good records are there, and that as many were read as there are, by the reader that is exact."""
    for table, where in LOADED.items():
        expected = 2 if table in {"roles", "agent_role_mapping"} else 1
        assert db.one(f"SELECT count(*) FROM {table} WHERE {where}") == expected, table
    read = {
        row["source"]: row for row in db.rows("SELECT DISTINCT ON (source) * FROM stg_sync_sources WHERE is_folder")
    }
    for folder in GOOD:
        there = rejected = 0
        for file in list_folder(str(dump.path / "sync-day1"), folder, RESOURCE[folder]).files:
            try:
                records = list(read_exactly(file, RESOURCE[folder]))
            except Unreadable:
                there, rejected = there + 1, rejected + 1
            else:
                there, rejected = there + len(records), rejected + sum(r.fault is not None for r in records)
        assert read[folder]["records_read"] == there
        assert read[folder]["rejected"] >= rejected
    assert db.one("SELECT count(*) FROM stg_pipeline_errors WHERE raw_record IS NULL") == empty_files(dump)


def empty_files(dump: Dump) -> int:
    """Files with no byte in them, and which are yet to be unpacked."""
    return sum(not path.stat().st_size and path.suffix in {".gz", ".zst"} for path in dump.path.rglob("*.*"))


def test_the_corpus_is_what_its_generator_makes() -> None:
    kept = {path.name: path.read_bytes() for path in hostile.CORPUS.iterdir()}
    made = {one.file: one.data for one in EVERY}
    assert len(EVERY) > 1200
    assert len(kept) > 250
    assert all(made[name] == data for name, data in kept.items())


def test_what_is_spoiled_is_valid_and_whole(db: Database, dump: Dump, sync: Sync) -> None:
    """Each record has every field of its contract, so that each has been of a wrong type."""
    for folder, record in hostile.FULL.items():
        there = {".".join(path) for path in hostile.paths(record)}
        assert all(there & set(field.paths) for field in hostile.CONTRACTS[folder].fields), folder
        dump.write("day1", folder, [record])
    sync("day1", "2026-01-05")
    assert db.one("SELECT count(*) FROM stg_pipeline_errors") == 0
    assert db.one("SELECT count(*) FROM transactions") == 1


def test_a_fault_in_a_record_that_lacks_nothing_is_found(db: Database, dump: Dump, sync: Sync) -> None:
    given = {name: value for name, value in hostile.FULL["agent_details"].items() if value is not None}
    whole = hostile.full(given, hostile.CONTRACTS["agent_details"])
    dump.write("day1", "agent_details", [whole, whole | {"id": 8, "available": "?"}])
    sync("day1", "2026-01-05")
    (error,) = db.rows(
        "SELECT agent_id, error_message FROM agent_pipeline_errors WHERE error_type <> 'REFERENCE_ERROR'"
    )
    assert error == {"agent_id": 8, "error_message": 'available: found "?", expected true or false'}


@pytest.mark.parametrize("part", range(20))
def test_hostile_input_costs_itself_alone(part: int, db: Database, dump: Dump, torture: Torture) -> None:
    some = EVERY[part::20] if torture.is_full else random.Random(part).sample(EVERY[part::20], 2)
    write_good(dump)
    for one in some:
        empty(db)
        path = dump.write("day1", one.folder, one.data, one.file)
        sync_into(db.url, str(dump.path), "day1", "2026-01-05", allow_mass_change=True, max_rejected="100%")
        judge(db, dump)
        path.unlink()
        torture.count("hostile inputs, each alone")


def test_all_hostile_input_at_once(shell: Shell, db: Database, dump: Dump) -> None:
    write_good(dump)
    for one in EVERY:
        dump.write("day1", one.folder, one.data, one.file)
    done = shell.run("sync", dump.path, "--day", "day1", "--sync-date", "2026-01-05", "--max-rejected", "100%")
    assert done.returncode == 0, done.stderr
    judge(db, dump)
    assert shell.run("errors", "--json").returncode == 0
    assert len(done.stdout.splitlines()) < 100  # a summary, however much is wrong


@pytest.mark.parametrize("pack", [".gz", ".zst"])
@pytest.mark.parametrize("filler", [b" ", b"0", b"[", b"1,"])
def test_a_bomb_fills_neither_memory_nor_disk(
    pack: str, filler: bytes, shell: Shell, db: Database, dump: Dump, tmp_path: Path
) -> None:
    path = dump.write("day1", "cards", b"", f"bomb.json{pack}")
    chunk = filler * (1024 * 1024 // len(filler))
    with gzip.open(path, "wb") if pack == ".gz" else zstandard.open(path, "wb") as file:
        file.write(b"[")
        for _ in range(1024 if pack == ".zst" else 200):
            file.write(chunk)
    write_good(dump)
    temp = tmp_path / "temp"
    temp.mkdir()
    environment = shell.environment | {"DESKROLL_TEMP_FOLDER": str(temp)}
    command = [sys.executable, "-m", "deskroll", "sync", str(dump.path), "--day", "day1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    assert process.returncode == 0
    assert usage.ru_maxrss < 1024 * 1024  # KiB
    (error,) = db.rows("SELECT error_message, length(raw_record::TEXT) AS kept FROM card_pipeline_errors")
    assert error["error_message"] == "the file unpacks to more than 250 times its size"
    assert error["kept"] < 100_000
    assert db.one("SELECT count(*) FROM cards") == 1
