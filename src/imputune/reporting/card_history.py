"""The history at the end of a card: a line for each thing that happened to a version, and its limit of length.

Lines below the heading that are no lines of the history are a user's own, and stay where they are.
"""

from dataclasses import dataclass

HEADING = "## History"
SHORTENED = "- Earlier lines are in model_card.md."
EVENT_START = "- **"


@dataclass(frozen=True, kw_only=True)
class CardEvent:
    """Something that happened to a version: what, when, and the numbers.

    kind: how the words of all events of its kind begin, () if there are no others. An event replaces the last one of
    its kind if that has the same words, so that a command that is run again adds nothing twice.
    """

    what: str
    text: str
    kind: tuple[str, ...] = ()

    @property
    def start(self) -> str:
        """How its line begins."""
        return f"{EVENT_START}{self.what}** "

    @property
    def line(self) -> str:
        """Its line."""
        return f"{self.start}{self.text}"

    def is_in(self, card: str) -> bool:
        """Say whether a card's history has a line with its words."""
        lines = card.split("\n")
        return any(lines[place].startswith(self.start) for place in _history(lines))


def with_event(card: str, event: CardEvent) -> str:
    """Return a card with an event as the last line of its history; the rest stays as it is, whoever wrote it."""
    lines = card.split("\n")
    heading = _heading(lines)
    if heading is None:
        before = card.rstrip("\n")
        return f"{before}\n\n{HEADING}\n\n{event.line}\n" if before else f"{HEADING}\n\n{event.line}\n"
    places = _history(lines)
    starts = (event.start, *(f"{EVENT_START}{words}" for words in event.kind))
    of_its_kind = [place for place in places if lines[place].startswith(starts)]
    at, new = (places[-1] if places else heading) + 1, [event.line]
    if places:
        while at < len(lines) and lines[at].strip():  # what a user added to the last line
            at += 1
    elif lines[at : at + 1] == [""]:
        at += 1
    else:
        new.insert(0, "")
    if at == len(lines) or lines[at].strip():
        new.append("")
    lines[at:at] = new
    if of_its_kind and lines[of_its_kind[-1]].startswith(event.start):
        del lines[of_its_kind[-1]]
    return "\n".join(lines)


def shortened(card: str, limit: int) -> str:
    """Return a card of at most `limit` characters: the oldest lines of its history are left out, as far as needed.

    All else is kept as long as it fits; a card that is longer without history is cut.
    """
    lines = card.split("\n")
    places = _history(lines)
    if len(card) <= limit or not places:
        return card[:limit]
    events = [place for place in places if lines[place] != SHORTENED]
    for count in range(1, len(events)):
        last = events[count - 1]  # of those that are left out
        shorter = [
            SHORTENED if place == last else line
            for place, line in enumerate(lines)
            if place >= last or place not in places
        ]
        if len(text := "\n".join(shorter)) <= limit:
            return text
    others = "\n".join(line for place, line in enumerate(lines) if place not in {*places, _heading(lines)})
    return f"{others.rstrip()}\n"[:limit]


def _heading(lines: list[str]) -> int | None:
    """Return the place of the history's heading, None without one; of several the last."""
    places = [place for place, line in enumerate(lines) if line.rstrip() == HEADING]
    return places[-1] if places else None


def _history(lines: list[str]) -> list[int]:
    """Return the places of the history's own lines."""
    heading = _heading(lines)
    if heading is None:
        return []
    return [
        place
        for place, line in enumerate(lines)
        if place > heading and (line.startswith(EVENT_START) or line == SHORTENED)
    ]
