"""The AUCs that the paper reports or quotes, to compare with ours.

The paper gives no deviation over folds. It does not name the input of its recurrent heads (imputed or raw) and of its
non-neural heads. It does not fully describe which epoch it keeps. For Table III we know only the averages over the
schedules that the text quotes. Section VI.D also gives 0.786 and 0.81 for mlp5, without naming the schedules. Sections
V.E and VI.C disagree on two averages (mlp5 validation 0.821 or 0.824; mlp2 test 0.798 or 0.797): we use VI.C. Section
V.E also calls lstm's validation AUC (0.813) the lowest, although mlp2's is 0.811, and mlp2's test AUC the highest,
although mlp5's is 0.805.
"""

from dataclasses import dataclass

from imputune.protocol.outcomes import DEFAULT_OUTCOME


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """Validation and test AUC in the paper, None if it gives none, and the table or section that gives them."""

    val_auc: float | None
    test_auc: float | None
    source: str | None


SCHEDULES = ("optuna", "cyclic", "plateau")
AVERAGE = "average"
# Table II by dataset and head: validation and test AUC for optuna, cyclic, plateau and their average.
FROZEN = {
    ("physionet2012", "mlp2"): ((0.783, 0.777), (0.786, 0.782), (0.783, 0.778), (0.784, 0.779)),
    ("physionet2012", "mlp5"): ((0.780, 0.768), (0.789, 0.763), (0.786, 0.764), (0.785, 0.765)),
    ("physionet2012", "lstm"): ((0.785, 0.780), (0.803, 0.777), (0.802, 0.786), (0.797, 0.781)),
    ("physionet2012", "gru"): ((0.783, 0.758), (0.800, 0.786), (0.798, 0.792), (0.794, 0.779)),
    ("mimic3", "mlp2"): ((0.766, 0.755), (0.765, 0.754), (0.766, 0.756), (0.766, 0.755)),
    ("mimic3", "mlp5"): ((0.739, 0.720), (0.755, 0.694), (0.751, 0.705), (0.748, 0.706)),
    ("mimic3", "lstm"): ((0.818, 0.787), (0.834, 0.791), (0.830, 0.806), (0.827, 0.795)),
    ("mimic3", "gru"): ((0.810, 0.782), (0.834, 0.775), (0.832, 0.792), (0.825, 0.783)),
}
# Averages over the schedules, from sections V.E and VI.C.
UNFROZEN: dict[tuple[str, str], tuple[float | None, float | None]] = {
    ("physionet2012", "mlp2"): (0.811, 0.797),
    ("physionet2012", "mlp5"): (0.824, 0.805),
    ("physionet2012", "lstm"): (0.813, None),
    ("physionet2012", "gru"): (None, 0.777),
    ("mimic3", "mlp2"): (0.839, 0.819),
    ("mimic3", "mlp5"): (0.832, 0.782),
}
NON_NEURAL_FIGURES = {
    ("physionet2012", "xgboost"): 0.620,
    ("physionet2012", "svm"): 0.590,
    ("mimic3", "xgboost"): 0.623,
    ("mimic3", "svm"): 0.570,
}
# Test AUC on PhysioNet 2012 of other models, the first three quoted by the paper, BRITS's by others; trained and tested
# by other protocols: no comparison, only landmarks.
REFERENCES = {
    "Set Functions for Time Series": 0.869,
    "Interpolation-Prediction Networks": 0.864,
    "mTAN": 0.858,
    "BRITS": 0.850,
}
# The winners of the PhysioNet/Computing in Cardiology Challenge 2012 on its set-c (4,000 stays), by the score's name in
# `evaluate`: Johnson et al. in event 1, Citi and Barbieri in event 2 (physionet.org/challenge/2012, top scores). They
# are landmarks too: of other stays, and H grows with the number of stays.
CHALLENGE_2012 = {"challenge_event_1": 0.5353, "challenge_event_2": 17.88}
REFERENCE_DATASET = "physionet2012"


def published_dataset(dataset: str, outcome: str) -> str:
    """Return the dataset under which the paper's figures stand; "" for an outcome that the paper does not have."""
    return dataset if outcome == DEFAULT_OUTCOME else ""


def quoted_references(dataset: str, outcome: str) -> dict[str, float]:
    """Return the test AUCs of other models by other protocols, for a dataset and outcome; none for most."""
    return dict(REFERENCES) if published_dataset(dataset, outcome) == REFERENCE_DATASET else {}


def quoted(dataset: str, head: str, *, mode: str, input: str, schedule: str) -> Quoted | None:
    """Return what the paper has for a variant, or for the average of its schedules (schedule "average").

    None where it has nothing: an unknown dataset, or statistics as input, which it did not try.
    """
    key = dataset, head
    if schedule == "none":
        figure = NON_NEURAL_FIGURES.get(key) if input != "summary" else None
        if figure is None:
            return None
        return Quoted(val_auc=None, test_auc=figure, source="section V.E, input not said")
    if mode == "frozen":
        if key not in FROZEN:
            return None
        val_auc, test_auc = FROZEN[key][(*SCHEDULES, AVERAGE).index(schedule)]
        return Quoted(val_auc=val_auc, test_auc=test_auc, source="Table II")
    if key not in UNFROZEN:
        return None
    unfrozen_val_auc, unfrozen_test_auc = UNFROZEN[key]
    source = "section VI.C, average of schedules"
    return Quoted(val_auc=unfrozen_val_auc, test_auc=unfrozen_test_auc, source=source)
