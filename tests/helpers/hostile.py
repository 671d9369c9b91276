"""Hostile input: `python -m tests.helpers.hostile` writes the small ones of it into tests/corpus/.

Every input is one file of one folder. The same code always makes the same bytes.
"""

import gzip
import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from deskroll.pipelines import PIPELINES
from deskroll.spec.contract import Contract
from tests.helpers.entities import ENTITIES

CORPUS = Path(__file__).parent.parent / "corpus"
SMALL = 2000  # bytes of an input that is kept in the repository


class Hostile(NamedTuple):
    """A file: what it is called, the folder that it is for, how its name ends, and what is in it."""

    name: str
    folder: str
    ending: str
    data: bytes

    @property
    def file(self) -> str:
        return f"{self.folder}-{self.name}{self.ending}"


def pack(data: bytes) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(data)
    return packed.getvalue()


VALID: dict[str, Any] = {"VARCHAR": "1", "BIGINT": 7, "INTEGER": 2, "BOOLEAN": True}
VALID |= {"DATE": "2026-01-01", "TIMESTAMPTZ": "2026-01-01T00:00:00Z"}


def put(record: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    name, *rest = path
    return record | {name: put(record.get(name, {}), rest, value) if rest else value}


def paths(record: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in record.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from paths(value, (*before, name))


def full(record: dict[str, Any], contract: Contract) -> dict[str, Any]:
    """A valid record with every field of its contract, at the first place where that is looked for."""
    there = set(paths(record))
    for field in contract.fields:
        path = tuple(field.paths[0].split("."))
        record = record if path in there else put(record, path, VALID[field.type.sql])
    return record


CONTRACTS = {source.folder: source.contract for pipeline in PIPELINES for source in pipeline.inputs}
FULL = {entity.folder: full(entity.full, CONTRACTS[entity.folder]) for entity in ENTITIES}
LISTS = {entity.folder for entity in ENTITIES if entity.is_enveloped}
WRONG: dict[str, Any] = {
    "object": {"a": 1},
    "array": [1],
    "NUL": "a\\u0000b",
    "surrogate": "\\ud83d",
    "long": "x" * 300,
    "NUL-after-a-brace": "{\\u0000",
    "number": -1.5,
    "beyond": 2**70,
}


def text_of(folder: str, *records: str) -> bytes:
    joined = ", ".join(records)
    return (f'{{"results": [{joined}], "nextPage": null}}' if folder in LISTS else f"[{joined}]").encode()


def wrong_types() -> Iterator[Hostile]:
    """Each field of each folder, a value of another kind in its place."""
    for folder, record in FULL.items():
        for path in paths(record):
            for kind, value in WRONG.items():
                changed = json.dumps(put(record, path, value)).replace("\\\\u", "\\u")
                yield Hostile(f"{'.'.join(path)}-{kind}", folder, ".json", text_of(folder, changed))


def cut_short() -> Iterator[Hostile]:
    """Files that end too early, at every kind of place."""
    for folder in ("agent_details", "cards", "transactions"):
        record = json.dumps(FULL[folder])
        for ending, whole in {
            ".json": text_of(folder, record, record),
            ".ndjson": f"{record}\n{record}".encode(),
        }.items():
            for share in range(1, 12):
                yield Hostile(f"cut-{share}", folder, ending, whole[: len(whole) * share // 12])
    for ending, packed in ((".json.gz", pack(text_of("cards", json.dumps(FULL["cards"])))),):
        for share in range(1, 6):
            yield Hostile(f"cut-{share}", "cards", ending, packed[: len(packed) * share // 6])
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(text_of("cards", json.dumps(FULL["cards"])))
    for share in range(1, 6):
        yield Hostile(f"cut-{share}", "cards", ".ndjson.zst", frame[: len(frame) * share // 6])


def large() -> Iterator[Hostile]:
    """Files that DuckDB reads as they lie on disk."""
    many = ",\n".join(json.dumps(FULL["cards"] | {"id": str(n), "name": "x" * 1000}) for n in range(300))
    whole = {
        "cut-after-a-comma": f"[{many},\n",
        "cut-before-a-comma": f"[{many}",
        "comma-at-the-end": f"[{many}, ]",
        "inf": f"[{many}]".replace('"id": "7"', '"id": inf'),
        "more-after": f"[{many}] []",
        "space-after": f"[{many}]" + " " * 9000,
    }
    for name, text in whole.items():
        yield Hostile(f"large-{name}", "cards", ".json", text.encode())
        yield Hostile(f"large-{name}", "cards", "\\.json", text.encode())
        yield Hostile(f"large-{name}", "cards", ".json.gz", pack(text.encode()))
    lines = many.replace(",\n", "\n")
    yield Hostile("large-lines-cut", "cards", ".jsonl", lines[:-9].encode())
    yield Hostile("large-lines-inf", "cards", "\\.jsonl", lines.replace('"id": "7"', '"id": inf').encode())


def damaged() -> Iterator[Hostile]:
    """Files of which some bytes are not what they were."""
    dice = random.Random(1)
    for folder in ("agent_details", "budgets", "transactions"):
        whole = text_of(folder, json.dumps(FULL[folder]), json.dumps(FULL[folder]))
        for number in range(25):
            data = bytearray(whole)
            for _ in range(dice.randint(1, 4)):
                place = dice.randrange(len(data))
                match dice.randrange(3):
                    case 0:
                        data[place] = dice.randrange(256)
                    case 1:
                        del data[place]
                    case _:
                        data[place:place] = dice.choice(
                            [b"\\", b'"', b"]", b"}", b"{", b"[", b",", b"\x00", b"\xff", b"1e999"]
                        )
            yield Hostile(f"damaged-{number}", folder, ".json", bytes(data))


def odd() -> Iterator[Hostile]:
    """What is no JSON, or is and nobody expects it."""
    deep = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    whole = {
        "utf-16": '[{"id": 1}]'.encode("utf-16"),
        "utf-32": '[{"id": 1}]'.encode("utf-32"),
        "utf-16-no-mark": '[{"id": 1}]'.encode("utf-16-le"),
        "latin-1": '[{"id": 1, "name": "\xe9"}]'.encode("latin-1"),
        "overlong": b'[{"id": 1, "name": "\xc0\xaf"}]',
        "surrogate-in-utf-8": b'[{"id": 1, "name": "\xed\xa0\x80"}]',
        "marks": b"\xef\xbb\xbf\xef\xbb\xbf[]",
        "mark-inside": b'[{"id": 1}\xef\xbb\xbf]',
        "NUL": b"\x00",
        "NULs": b"\x00" * 1000,
        "NUL-after": b"[]\x00",
        "text": b'"text"',
        "number": b"12",
        "true": b"true",
        "null": b"null",
        "nothing-but-a-comma": b"[,]",
        "html": b"<html><body>502 Bad Gateway</body></html>",
        "error": b'{"code": "invalid_credentials", "message": "You have to be logged in"}',
        "NaN": b'[{"id": NaN}]',
        "Infinity": b'[{"id": -Infinity}]',
        "1e400": b'[{"id": 1e400, "currentPeriod": {"limit": 1e400}}]',
        "digits": b'[{"id": ' + b"9" * 5000 + b"}]",
        "long-fraction": b'[{"id": "x", "name": "n", "currentPeriod": {"limit": 0.' + b"1" * 5000 + b"}}]",
        "leading-zero": b'[{"id": 01}]',
        "plus": b'[{"id": +1}]',
        "hex": b'[{"id": 0x1}]',
        "single-quotes": b"[{'id': 1}]",
        "comment": b'[{"id": 1 /* one */}]',
        "deep-object": b'[{"id": 1, "x": ' + deep + b"}]",
        "deep-array": b"[" * 10_000 + b"]" * 10_000,
        "deep-open": b"[" * 10_000,
        "deep-envelope": b'{"results": [' + deep + b"]}",
        "keys-twice": b'[{"id": 1, "id": 2, "id": 3}]',
        "keys-twice-with-NUL": b'[{"id": 1, "a\\u0000": 2, "a\\u0000": 3}]',
        "keys-twice-inside": b'[{"id": 1, "contact": {"name": "a", "name": "b", "email": "e"}}]',
        "escaped-key-twice": b'[{"id": 1, "\\u0069d": 2}]',
        "many-keys": b'[{"id": 1, ' + b", ".join(b'"k%d": %d' % (n, n) for n in range(3000)) + b"}]",
        "long-key": b'[{"' + b"k" * 100_000 + b'": 1}]',
        "long-text": b'[{"id": 1, "name": "' + b"x" * 1_000_000 + b'", "email": "e"}]',
        "space": b" " * 100_000,
        "space-inside": b"[" + b" " * 100_000 + b"]",
        "two-documents": b'[{"id": 1}] [{"id": 2}]',
        "results-twice": b'{"results": [{"id": 1}], "results": [{"id": 2}]}',
        "results-is-text": b'{"results": "none"}',
        "results-in-text": b'{"x": "\\"results\\": [1]", "id": 1}',
        "results-below": b'{"data": {"results": [{"id": 1}]}}',
        "results-of-results": b'{"results": [[{"id": 1}], {"results": []}]}',
        "separators": b'[{"id": "\x1e\x1f"}]',
        "control": b'[{"id": "\x01"}]',
        "escapes": b'[{"id": "\\x41"}]',
        "half-escape": b'[{"id": "\\u12"}]',
        "percent": b'[{"id": "%s%n{}"}]',
        "copy-end": b'[{"id": 1, "name": "\\\\.", "email": "\\\\N\\n\\\\."}]',
    }
    for folder in ("agent_details", "budgets"):
        for name, data in whole.items():
            yield Hostile(name, folder, ".json", data)
        for name in ("text", "NaN", "error", "deep-open", "utf-16", "NUL", "comment", "keys-twice"):
            yield Hostile(name, folder, ".jsonl", whole[name] + b"\n" + json.dumps(FULL[folder]).encode())
            yield Hostile(name, folder, ".json.gz", pack(whole[name]))
    yield Hostile("no-gzip", "cards", ".json.gz", b"[]")
    yield Hostile("no-zstd", "cards", ".json.zst", b"[]")
    yield Hostile("gzip-of-gzip", "cards", ".json.gz", pack(pack(b"[]")))
    yield Hostile("more-after-gzip", "cards", ".json.gz", pack(b"[]") + b"junk")


def every() -> list[Hostile]:
    return [*odd(), *cut_short(), *large(), *damaged(), *wrong_types()]


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for one in every():
        if len(one.data) <= SMALL and one.name.partition("-")[2] not in WRONG:
            (CORPUS / one.file).write_bytes(one.data)
