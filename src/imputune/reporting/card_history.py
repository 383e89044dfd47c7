"""The history at the end of a card: a line for each thing that happened to a version, and its limit of length."""

from dataclasses import dataclass

HEADING = "## History"
SHORTENED = "- Earlier lines are in model_card.md."


@dataclass(frozen=True, kw_only=True)
class CardEvent:
    """Something that happened to a version: what, when, and the numbers.

    what: a later event with the same words replaces it.
    """

    what: str
    text: str

    @property
    def start(self) -> str:
        """How its line begins."""
        return f"- **{self.what}**"

    @property
    def line(self) -> str:
        """Its line."""
        return f"{self.start} {self.text}"


def with_event(card: str, event: CardEvent) -> str:
    """Return a card with an event as the last line of its history; the rest stays as it is, whoever wrote it.

    A line of an event with the same words is taken out, so that a command that is run again adds nothing twice.
    """
    before, lines = _divided(card)
    kept = [line for line in lines if not line.startswith(f"{event.start} ")]
    return _joined(before, [*kept, event.line])


def shortened(card: str, limit: int) -> str:
    """Return a card of at most `limit` characters: the oldest lines of its history are left out, as far as needed.

    What stands before the history is kept as long as it fits; a card that is longer without history is cut.
    """
    before, lines = _divided(card)
    if len(card) <= limit or not lines:
        return card[:limit]
    kept = [line for line in lines if line != SHORTENED]
    while kept and len(_joined(before, [SHORTENED, *kept])) > limit:
        kept.pop(0)
    return _joined(before, [SHORTENED, *kept] if kept else [])[:limit]


def _divided(card: str) -> tuple[str, list[str]]:
    """Return what stands before the history, and the lines of the history."""
    before, heading, history = card.rpartition(f"{HEADING}\n")
    if not heading:
        return card.rstrip("\n"), []
    return before.rstrip("\n"), [line for line in history.splitlines() if line.strip()]


def _joined(before: str, lines: list[str]) -> str:
    if not lines:
        return f"{before}\n" if before else ""
    history = "\n".join((HEADING, "", *lines))
    return f"{before}\n\n{history}\n" if before else f"{history}\n"
