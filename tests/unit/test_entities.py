"""The registry of the tests has every folder that deskroll reads, and so has the sample."""

from deskroll.pipelines import PIPELINES
from tests.helpers.entities import ENTITIES
from tests.helpers.runs import SAMPLE

FOLDERS = {input_.folder for pipeline in PIPELINES for input_ in pipeline.inputs}


def test_every_folder_is_in_the_registry() -> None:
    assert {entity.folder for entity in ENTITIES} == FOLDERS


def test_every_folder_is_in_the_sample() -> None:
    assert {path.name for path in SAMPLE.glob("*/*") if path.is_dir()} == FOLDERS


def test_every_pipeline_has_a_row_that_is_loaded() -> None:
    loaded = {table for entity in ENTITIES for table in entity.loaded}
    assert all(next(iter(pipeline.publication.tables)) in loaded for pipeline in PIPELINES)
