import pytest

from imputune.data.raw.mimic3.variables import VARIABLES as MIMIC3_VARIABLES
from imputune.data.raw.other_quantities import NAMES_NOT_IT, joined
from imputune.data.raw.physionet2012_parameters import VARIABLES
from imputune.data.raw.spelling import explain_unknown, spelt_like

CHALLENGE = tuple(variable.name for variable in VARIABLES)
MIMIC3 = tuple(variable.name for variable in MIMIC3_VARIABLES)


def test_every_variable_has_names_that_are_not_it():
    """Each variable of each dataset has its list, and no list is left over."""
    assert set(NAMES_NOT_IT) == {*CHALLENGE, *MIMIC3}
    assert all(len(names) > 0 and len(set(names)) == len(names) for names in NAMES_NOT_IT.values())


def test_datasets_with_a_variable_of_the_same_name_share_its_list():
    """The second list adds to the first, and no name is there twice."""
    assert joined({"K": "KCl UK"}, {"Na": "NaCl", "K": "UK Ca"}) == {"K": ("KCl", "UK", "Ca"), "Na": ("NaCl",)}


@pytest.mark.parametrize("known", [CHALLENGE, MIMIC3], ids=["challenge", "mimic3"])
def test_another_quantity_is_never_to_be_renamed(known):
    """No listed name gets a hint, and none is a variable's own name."""
    for name in known:
        for other in NAMES_NOT_IT[name]:
            assert other not in known
            assert spelt_like(other, known) is None, other
            line = explain_unknown(other, known, known)
            assert "did you mean" not in line
            assert "do not rename them" in line
            assert name in line


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("SysPAP", "SysABP or NISysABP"),
        ("TempF", "Temp"),
        ("SvO2", "SaO2"),
        ("Troponin", "TroponinT or TroponinI"),
        ("mg", "Mg"),
        ("PAO2", "PaO2"),
        ("svo2", "SaO2"),
    ],
)
def test_the_quantity_that_it_is_not_is_named(word, names):
    """The line says which variables are not meant, and lists the known names."""
    line = explain_unknown(word, CHALLENGE, CHALLENGE)
    assert line == (
        f"unknown parameter {word!r}: it may be another quantity, specimen or unit than {names}; remove its rows, do "
        f"not rename them (known parameters: {', '.join(CHALLENGE)})"
    )


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("hCt", "HCT"),
        ("Sys ABP", "SysABP"),
        ("NI-MAP", "NIMAP"),
        ("PH", "pH"),
        ("NA", "Na"),
        ("HRR", "HR"),
        ("Lactat", "Lactate"),
        ("Lacttate", "Lactate"),
        ("Glocuse", None),
        ("Glucsoe", "Glucose"),
        ("Bilirubbin", "Bilirubin"),
        ("Cholestrol", "Cholesterol"),
        ("Creatinime", "Creatinine"),
        ("haemoglobin", "hemoglobin"),
        ("calcium_ionised", "calcium_ionized"),
    ],
)
def test_a_slip_of_the_pen_gets_a_hint(word, name):
    """Letter case, joints, and one letter doubled, missing, wrong, too many or swapped; not two."""
    assert spelt_like(word, CHALLENGE + MIMIC3 if name in MIMIC3 else CHALLENGE) == name


@pytest.mark.parametrize("word", ["Pulse", "X", "KK2", "Nb", "PaO3x", "TroponinX", "Temp1", "xGlucose", "", "HR" * 99])
def test_other_words_get_the_list_of_names(word):
    """A word that is near no name, or near two, gets the names to choose from."""
    assert spelt_like(word, CHALLENGE) is None
    line = explain_unknown(word, CHALLENGE, CHALLENGE)
    assert line.endswith(f"; remove its rows, or name it as one of {', '.join(CHALLENGE)}")
    assert len(line) < 600
