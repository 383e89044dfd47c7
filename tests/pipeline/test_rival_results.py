from pathlib import Path

from imputune.artifacts.imputer_file import ImputerFile
from imputune.artifacts.results_files import Code
from imputune.artifacts.rivals_file import RivalResult, RivalsFile, write_rivals_file
from imputune.pipeline.project import Project
from imputune.pipeline.rival_results import rival_comparison
from imputune.protocol.rivals import Rival
from imputune.settings.file import read_params

ROOT = Path(__file__).parents[2]
DATA = {
    "dataset": "synthetic",
    "cohort_hash": "cohort",
    "folds_hash": "folds",
    "variables": 4,
    "stays": 90,
    "events": 30,
    "outcome": "in_hospital_death",
    "outcome_hash": "",
    "seed": 1,
}
JOINED = {"protocol": "external", "validation": 0.2, "seeds": [1], "cohorts": [["here", 60], ["there", 30]]}


def test_rivals_of_a_joined_cohort_are_compared_where_its_data_is_missing(tmp_path: Path) -> None:
    """The sizes of its two cohorts then stand in the imputer's file alone."""
    params = read_params(ROOT / "params.yaml")
    folds = params.folds.model_copy(update={"protocol": "external"})
    project = Project(root=tmp_path, params=params.model_copy(update={"dataset": "synthetic", "folds": folds}))
    result = RivalResult(
        rival=Rival.model_validate({"name": "seft", "input": "raw"}),
        settings={},
        num_parameters=5,
        learning_rate=0.01,
        rates={},
        folds=(),
        run_id="",
        code=Code(),
    )
    write_rivals_file(project.rivals_results_file, RivalsFile.model_validate(DATA).with_result(result))
    file = {"imputer": "csai", "settings": {"folds": JOINED}, "run_id": "", "code": {}, "folds": [], "rows": []}
    imputer = ImputerFile.model_validate(DATA | file)
    assert rival_comparison(project, imputer, [], None) == (None, [])
