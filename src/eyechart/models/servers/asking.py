"""A round of questions to a server: how many are under way, which were answered, which failed for good."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.servers.exchange import GaveUp
from eyechart.models.servers.responses import Answer, Refused

SHOWN = 5
HOPELESS = 3
"""At least so many questions must fail for good one after another, and as many as are asked at once, to end the asking."""


class Unanswered(UserError):
    """Questions that a server did not answer; `missing` has the reason of each by its key."""

    def __init__(self, text: str, missing: Mapping[str, str]) -> None:
        super().__init__(text)
        self.missing = dict(missing)


class Asking:
    """Iterate to get each key with its answer, as they come; then `settle`."""

    def __init__(
        self,
        put: Callable[[Prompt], "Future[Answer]"],
        given: Iterator[tuple[str, Prompt]],
        *,
        at_once: int,
        whom: str,
    ) -> None:
        """Ask nothing yet.

        Args:
            put: begins to ask one question.
            given: the questions, each under its key; taken only when there is room for one.
            at_once: so many are under way at most.
            whom: the server's name in error texts.
        """
        self._put, self._given = put, given
        self._at_once, self._whom = at_once, whom
        self._under_way: dict[Future[Answer], str] = {}
        self._failed: dict[str, str] = {}
        self._fatal: Exception | None = None
        self._answered = self._in_a_row = self._refused = 0
        self._over = False

    def __iter__(self) -> Iterator[tuple[str, Answer]]:
        while True:
            while self._has_room() and (pair := self._next()) is not None:
                self._under_way[pair[1]] = pair[0]
            if not self._under_way:
                return
            done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
            for future in done:
                key = self._under_way.pop(future)
                if (answer := self._taken(key, future)) is not None:
                    yield key, answer

    def cancel(self) -> None:
        """Drop what is under way."""
        for future in self._under_way:
            future.cancel()

    def settle(self) -> None:
        """Raise what there is to raise, all replies being given.

        Raises:
            Unanswered: some questions were not answered.
            Exception: what ended the asking: a refused key, or whatever the making of a prompt raised.
        """
        if self._fatal is not None:
            raise self._fatal
        if self._failed:
            raise Unanswered(self._words(), self._failed)

    def _hopeless(self) -> bool:
        none_ever = self._answered == 0 and self._refused >= HOPELESS
        return none_ever or self._in_a_row >= max(HOPELESS, self._at_once)

    def _has_room(self) -> bool:
        going_on = not self._over and self._fatal is None and not self._hopeless()
        return going_on and len(self._under_way) < self._at_once

    def _next(self) -> tuple[str, "Future[Answer]"] | None:
        """The next question, begun; None where there is none. An error of its making waits until the rest is given."""
        try:
            pair = next(self._given, None)
            if pair is not None:
                return pair[0], self._put(pair[1])
        except Exception as error:
            self._fatal = error
        self._over = True
        return None

    def _taken(self, key: str, future: "Future[Answer]") -> Answer | None:
        try:
            answer = future.result()
        except GaveUp as error:
            self._failed[key] = str(error)
            self._in_a_row += 1
        except Refused as error:
            self._failed[key] = str(error)
            self._refused += 1
        except Exception as error:
            self._fatal = self._fatal or error
        else:
            self._answered += 1
            self._in_a_row = 0
            return answer
        return None

    def _words(self) -> str:
        names = ", ".join(list(self._failed)[:SHOWN]) + (", ..." if len(self._failed) > SHOWN else "")
        first = next(iter(self._failed.values()))
        rest = "; any after them were not asked" if self._hopeless() else ""
        return (
            f"{self._whom} did not answer {len(self._failed)} questions ({names}){rest}; the first: {first}. All other"
            " answers are kept: the same command asks only these again"
        )
