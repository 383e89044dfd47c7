import re
from pathlib import Path

import pytest

from imputune.data.raw.meds.codes import find_codes, gives_outcome_away
from imputune.data.raw.meds.variable_file import READY, read_variable_file, ready_text
from imputune.data.raw.meds.variable_rows import COLUMNS
from imputune.data.raw.mimic3.variables import VARIABLES as MIMIC3_VARIABLES
from imputune.errors import UserError
from meds_raw import NAMES, VARIABLES, write_variables

MARKED = {"ICU_ADMISSION": 1, "ICU_DISCHARGE": 1, "MEDS_BIRTH": 1}
HEADER = "name,unit,codes,lowest,highest"


def test_rows_of_one_name_go_together(tmp_path: Path) -> None:
    """A later row of a name may leave out what the first one said, and has a conversion of its own."""
    file = read_variable_file(write_variables(tmp_path))
    assert tuple(each.name for each in file.variables) == NAMES
    temperature = file.variables[1]
    assert (temperature.unit, temperature.lowest, temperature.highest) == ("°C", 25, 45)
    assert [row.factor for row in temperature.rows] == [1, 0.5555555556]
    assert file.variables[4].rows[0].words == {"spontaneously": 4, "to speech": 3}
    assert file.codes_of("start") == ("ICU_ADMISSION", "ICU_ADMISSION//*")
    assert file.codes_of("birth") == ("MEDS_BIRTH",)
    born = read_variable_file(write_variables(tmp_path, "name,kind,codes\nhr,,HR\n,age,BORN\n"))
    assert born.codes_of("birth") == ("BORN",)
    assert file.with_mark("start", ("WARD",)).codes_of("start") == ("WARD",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,unit\nhr,bpm\n", "lacks the column codes in its first line: add it"),
        ("", "lacks the column name and codes in its first line"),
        ("name;codes\nhr;HR\n", "separates its columns by semicolons, not commas: save it with commas"),
        ("name\tcodes\nhr\tHR\n", "separates its columns by tabs, not commas: save it with commas"),
        (
            "name,codes,lowst\nhr,HR,1\n",
            r"has an unknown column 'lowst' \(did you mean 'lowest'\?\): rename or remove it",
        ),
        ("name,codes,codes\nhr,HR,HR\n", "names a column twice in its first line: remove one"),
        ("name,codes\nhr,HR,1\n", "line 2: 3 fields, not 2 as in the header; correct the line"),
        ("name,codes\nhr,\n", "line 2: hr has no codes; give one, or remove the line"),
        ("name,codes\n,HR\n", "line 2: name is empty; name the variable"),
        ("name,codes,lowest\nhr,HR,low\n", "line 2: lowest 'low' is not a number; correct it"),
        ("name,codes,lowest\nhr,HR,nan\n", "line 2: lowest 'nan' is not a number; correct it"),
        ("name,codes,lowest,highest\nhr,HR,9,1\n", "line 2: lowest 9 is above highest 1; exchange them"),
        ("name,codes,raw_lowest,raw_highest\nhr,HR,9,1\n", "line 2: raw_lowest 9 is above raw_highest 1; exchange"),
        ("name,codes,factor\nhr,HR,0\n", "line 2: factor is 0; every value would be the same"),
        ("name,codes,combined\nhr,HR,maen\n", r"line 2: unknown combined 'maen' \(did you mean 'mean'\?\); correct it"),
        (
            "name,codes,kind\nhr,HR,varable\n",
            r"line 2: unknown kind 'varable' \(did you mean 'variable'\?\); correct it",
        ),
        ("name,codes,words\neyes,EYES,none\n", "line 2: words 'none' must be WORD=NUMBER, several separated by semi"),
        ("name,codes,words\neyes,EYES,none=x\n", "line 2: words 'x' is not a number; correct it"),
        (
            "name,codes,unit\nhr,HR,bpm\nhr,PULSE,Hz\n",
            "line 3: unit 'Hz' of hr: line 2 has another one; make them equal",
        ),
        ("name,codes,kind\ngender,SEX,static\n", "has no row of a variable: give at least one, with a name and codes"),
        (
            "name,kind,codes,unit\nx,start,ICU,h\n",
            "line 2: a row of kind start does not use unit; leave the cell empty",
        ),
        ("name,kind,codes,combined\nx,static,A,sum\n", "line 2: a row of kind static does not use combined; leave"),
        (
            "name,kind,codes,value\n,age,BORN,90\n",
            "line 2: a row of kind age needs both raw_highest and value, or neither",
        ),
        ('name,codes\nhr,"HR\n', "is no CSV table"),
        (
            "name,codes,value,factor\non,ON,1,2\n",
            "line 2: factor has no effect beside value, which is taken",
        ),
        ("name,codes,value,offset\non,ON,1,2\n", "line 2: offset has no effect beside value"),
        *(
            (
                f"name,kind,codes\nhr,,HR\n{name},static,A\n",
                f"line 3: a static fact cannot be called {name}, as",
            )
            for name in ("stay_id", "subject_id", "source_id", "died", "outcome", "age_years")
        ),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, told: str) -> None:
    """Every fault of a variable file is one line with its place and what to do."""
    with pytest.raises(UserError, match=told) as error:
        read_variable_file(write_variables(tmp_path, text))
    assert "\n" not in str(error.value)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    """A mark of byte order is read over; other encodings, and names that are neither file nor ready, are refused."""
    path = tmp_path / "v.csv"
    path.write_bytes(b"\xef\xbb\xbf" + VARIABLES.encode())
    assert len(read_variable_file(str(path)).variables) == len(NAMES)
    path.write_bytes(VARIABLES.encode("utf-16"))
    with pytest.raises(UserError, match="is UTF-16 text: save it as UTF-8"):
        read_variable_file(str(path))
    path.write_bytes(VARIABLES.encode("latin-1"))
    with pytest.raises(UserError, match="is no UTF-8 text: save it as UTF-8"):
        read_variable_file(str(path))
    with pytest.raises(
        UserError, match=r"mimic is neither a file nor a ready one \(did you mean 'mimic4'\?\): name one"
    ):
        read_variable_file("mimic")
    with pytest.raises(UserError, match="is no ready file"):
        ready_text(str(path))


def found(tmp_path: Path, rows: str, *codes: str) -> dict[str, list[str]]:
    """Return the codes of each variable among the dataset's."""
    file = read_variable_file(write_variables(tmp_path, f"{HEADER}\n{rows}\n"))
    meant = find_codes(file, {**MARKED, **dict.fromkeys(codes, 1)}, with_age=True)
    by_name: dict[str, list[str]] = {each.name: [] for each in file.variables}
    for each in meant.variables:
        by_name[file.variables[each.item].name].append(each.code)
    return by_name


def test_patterns(tmp_path: Path) -> None:
    """Only * is a wildcard, letter case counts, and semicolons separate codes."""
    codes = ("LAB//1//mg", "LAB//1//g", "LAB//11//mg", "lab//1//mg", "pH [a]?", "pH a", "A")
    assert found(tmp_path, "one,,LAB//1//*,,\nph,,pH [a]?; A,,", *codes) == {
        "one": ["LAB//1//g", "LAB//1//mg"],
        "ph": ["pH [a]?", "A"],
    }


def test_a_code_of_two_variables(tmp_path: Path) -> None:
    """A code that two variables claim, and one that two rows convert differently, are refused with both lines."""
    with pytest.raises(
        UserError, match=r"one \(line 2\) and two \(line 3\) both claim the code 'HR//bpm': leave it to o"
    ):
        found(tmp_path, "one,,HR//bpm,,\ntwo,,HR//*,,", "HR//bpm")
    with pytest.raises(UserError, match="lines 2 and 3 of the variable file both convert 'HR//bpm' of one: give them"):
        found(tmp_path, "one,,HR//bpm,,\none,,HR//*,,", "HR//bpm")


def test_codes_that_no_event_has(tmp_path: Path) -> None:
    """Absent variables are named with their near miss; a dataset without any is refused."""
    file = read_variable_file(write_variables(tmp_path, f"{HEADER}\none,,HR//bpm,,\ntwo,,TEMPRATURE,,\nthree,,XYZ,,\n"))
    meant = find_codes(file, {**MARKED, "HR//bpm": 1, "TEMPERATURE": 1}, with_age=True)
    assert meant.absent == {"two": " (did you mean 'TEMPERATURE'?)", "three": ""}
    with pytest.raises(UserError, match=r"no event has a code of the 3 variables \(one, two, three\): choose another"):
        find_codes(file, MARKED, with_age=True)
    without = {code: 1 for code in MARKED if code != "ICU_DISCHARGE"} | {"HR//bpm": 1, "ICU_DISCHARGED": 1}
    with pytest.raises(UserError, match=r"which should end a stay \(did you mean 'ICU_DISCHARGED'\?\): name the"):
        find_codes(file, without, with_age=True)
    with pytest.raises(UserError, match="no event has the code MEDS_BIRTH, which should give the time of birth"):
        find_codes(file, dict.fromkeys(("ICU_ADMISSION", "ICU_DISCHARGE", "HR//bpm"), 1), with_age=True)


def test_near_misses_are_looked_for_where_they_are_shown(tmp_path: Path) -> None:
    """Of many absent variables, the first five have a near miss: looking through all codes takes time."""
    rows = "".join(f"v{number},,TEMPRATURE{number},,\n" for number in range(7))
    file = read_variable_file(write_variables(tmp_path, f"{HEADER}\none,,HR,,\n{rows}"))
    meant = find_codes(file, {**MARKED, "HR": 1, "TEMPERATURE": 1}, with_age=True)
    assert list(meant.absent.values()) == [*[" (did you mean 'TEMPERATURE'?)"] * 5, "", ""]


@pytest.mark.parametrize(
    "code",
    [
        "HOSPITAL_DISCHARGE//DIED", "ICU_DISCHARGE//MICU", "ICU_DISCHARGE_WEIGHT", "MEDS_DEATH", "DIAGNOSIS//ICD//9//1",
        "DRG//APR//720", "HCPCS//x", "PROCEDURE//ICD//9//96", "Death", "BILLING//1", "CAREPLAN_GENERAL//Discharge plan",
        "EXPIRED", "HOSPITAL_EXPIRE_FLAG", "DEAD", "DISCHARGED//HOME", "DISCHARGE-HOME", "DISCHARGE: home", "DISCHTIME",
        "DEATHTIME", "ICD10CM//A41.9", "ICD9//38.9", "DIAGNOSES_ICD//1", "ADMISSION_DIAGNOSIS//Sepsis",
        "PROCEDURE_ICD//9671", "predictedHospitalMortality", "hospitaldischargestatus", "ICD//10", "LOS", "deathOffset",
    ],
)  # fmt: skip
def test_codes_that_give_the_outcome_away(tmp_path: Path, code: str) -> None:
    """Codes of discharge, death and billing become neither a variable nor a static fact, however they are named."""
    assert gives_outcome_away(code)
    with pytest.raises(
        UserError, match="of discharge, death, diagnosis or billing, recorded when the outcome is known: rem"
    ):
        found(tmp_path, "leak,,*,,", code)
    rows = f"name,kind,codes,value\nhr,,HR,\nleak,static,{code},1\n"
    with pytest.raises(UserError, match="leak selects the code"):
        find_codes(read_variable_file(write_variables(tmp_path, rows)), {**MARKED, "HR": 1, code: 1}, with_age=True)


def test_codes_that_do_not_give_it_away() -> None:
    """Codes of a stay itself are allowed, also those whose words are like the others."""
    allowed = (
        "LAB//220045//bpm", "PROCEDURE//START//225459", "ICU_ADMISSION//MICU", "OBSERVATION//Expired volume//ml",
        "Tidal volume, expired", "BILIRUBIN", "HRDOD", "DEADSPACE", "LAB//Dead space//ml", "deadSpaceVentilation",
        "ICDSC", "SCORE//ICDSC//points", "LOSARTAN", "INSPIRED_OXYGEN",
    )  # fmt: skip
    assert not [code for code in allowed if gives_outcome_away(code)]


@pytest.mark.parametrize("mark", ["died", "discharge", "death"])
@pytest.mark.parametrize("kind", ["", "static"])
def test_a_code_of_a_mark_that_has_the_outcome(tmp_path: Path, mark: str, kind: str) -> None:
    """A code that the file itself has as death or discharge is refused, however it is called."""
    rows = f"name,kind,codes,value\nhr,,HR,\nleft,{kind},GONE,1\nx,{mark},GONE,\n"
    file = read_variable_file(write_variables(tmp_path, rows))
    with pytest.raises(UserError, match=r"left selects the code 'GONE' of discharge.*remove it from line 3 of the"):
        find_codes(file, {**MARKED, "HR": 1, "GONE": 1}, with_age=True)


@pytest.mark.parametrize("name", READY)
def test_ready_files(name: str) -> None:
    """Names, units and ranges agree with MIMIC-III's, so that a model can be evaluated on other hospitals."""
    file = read_variable_file(name)
    known = {each.name: each for each in MIMIC3_VARIABLES}
    shared = [each for each in file.variables if each.name in known]
    assert len(shared) > 50
    for each in shared:
        other = known[each.name]
        assert (each.unit, each.lowest, each.highest) == (other.unit, other.lowest, other.highest), each.name
    assert {each.name for each in file.variables if each.name not in known} <= {
        "c_reactive_protein",
        "end_tidal_carbon_dioxide",
    }
    assert file.age is not None
    codes = [code for each in (*file.variables, *file.statics) for row in each.rows for code in row.patterns]
    assert not [code for code in codes if gives_outcome_away(code)]
    assert ready_text(name).count("\n") > 60


def test_conversions_of_the_ready_files() -> None:
    """HiRID's molar units become MIMIC's: creatinine of 100 µmol/L is 1.13 mg/dL, and so on."""
    hirid = {each.name: each.rows[0].factor for each in read_variable_file("hirid").variables}
    molar_masses = {"creatinine": 113.12e-4, "bilirubin": 584.66e-4, "glucose": 18.016, "calcium": 4.0078}
    for name, factor in molar_masses.items():  # grams a mole, to mg/dL from µmol/L or mmol/L
        assert hirid[name] == pytest.approx(factor, rel=1e-3), name
    assert hirid["urea_nitrogen"] == pytest.approx(2.8014, rel=1e-3)  # two nitrogen atoms a molecule
    assert hirid["magnesium"] == pytest.approx(2.4305, rel=1e-3)
    assert hirid["phosphate"] == pytest.approx(3.0974, rel=1e-3)
    assert (hirid["hemoglobin"], hirid["albumin"], hirid["fibrinogen"], hirid["troponin_t"]) == (0.1, 0.1, 100, 0.001)


def test_the_page_describes_every_column_and_its_example_is_read(tmp_path: Path) -> None:
    """docs/meds.md has a row for each column of the variable file, and the example there is one."""
    page = (Path(__file__).parents[3] / "docs/meds.md").read_text(encoding="utf-8")
    table = page.split("| column | meaning |")[1].split("\n\n")[0]
    described = [name for cell in re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE) for name in cell.split(", ")]
    assert sorted(described) == sorted(COLUMNS)
    [example] = re.findall(r"```\n(name,.*?)```", page, re.DOTALL)
    file = read_variable_file(write_variables(tmp_path, example))
    assert [(each.name, len(each.rows)) for each in file.variables] == [("temperature", 2), ("inspired_oxygen", 2)]
    for name in READY:
        assert f"| {name} | {len(read_variable_file(name).variables)} variables;" in page
