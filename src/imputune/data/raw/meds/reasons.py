"""How the counts of an extraction are told: what became of labels and events, by reason.

A cohort's source.json has the reasons in the plural, whatever their count.
"""

from collections.abc import Mapping

SINGULAR: Mapping[str, str] = {
    "labels read": "label read",
    "labels without a value or time": "label without a value or time",
    "labels without a window": "label without a window",
    "windows without a label": "window without a label",
    "windows with labels of both values": "window with labels of both values",
    "labels that repeat another of their window": "label that repeats another of its window",
    "labels differ from the in-hospital death that the codes tell": (
        "label differs from the in-hospital death that the codes tell"
    ),
    "stays died during the hospital stay, but the discharge does not say so: they have label 0": (
        "stay died during the hospital stay, but the discharge does not say so: it has label 0"
    ),
    "stays have their first hospital discharge after another hospital admission: their label may be of that one": (
        "stay has its first hospital discharge after another hospital admission: its label may be of that one"
    ),
    "ends without a start": "end without a start",
    "starts and ends that repeat another": "start or end that repeats another",
    "marks without a time": "mark without a time",
    "facts that contradict": "fact that contradicts",
    "events before the subject's birth or after the death": "event before the subject's birth or after the death",
}
"""Reasons that begin with a noun, as they are told of one."""


def told_counts(counts: Mapping[str, int]) -> str:
    """Return counts with their reasons, those of 0 left out: `1 label read, 2 windows without a label`."""
    return ", ".join(
        f"{count:,} {SINGULAR.get(reason, reason) if count == 1 else reason}"
        for reason, count in counts.items()
        if count
    )
