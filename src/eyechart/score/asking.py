"""How a question is put to a model: named templates and the labels its options bear in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eyechart.core.errors import UserError, unknown
from eyechart.core.records import Item
from eyechart.score.cells import LETTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStyle:
    """How options are named in a prompt: the bare labels, and how one stands before its option."""

    symbols: tuple[str, ...]
    form: str
    """With `{}` for the label: `{}.` or `({})`."""

    def labels(self, options: int) -> tuple[str, ...]:
        """The bare labels of so many options.

        Raises:
            UserError: there are more options than labels.
        """
        if options > len(self.symbols):
            raise UserError(f"{options} options, but only {len(self.symbols)} labels to name them by")
        return self.symbols[:options]


LABEL_STYLES: Mapping[str, LabelStyle] = {
    "upper": LabelStyle(symbols=tuple(LETTERS), form="{}."),
    "bracketed": LabelStyle(symbols=tuple(LETTERS.lower()), form="({})"),
    "numbers": LabelStyle(symbols=tuple(str(number) for number in range(1, 27)), form="({})"),
}
"""`A.` as in LLaVA's evaluation, `(a)` as in MMVP, `(1)` as in MMVP's ablation of the wording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A way of asking: how question and labelled options become one text, and the labels it uses by default."""

    name: str
    labels: str
    about: str
    write: Callable[[str, tuple[str, ...]], str]


def _letter(question: str, options: tuple[str, ...]) -> str:
    return "\n".join((question, *options, "Answer with the option's letter from the given choices directly."))


def _number(question: str, options: tuple[str, ...]) -> str:
    return "\n".join((question, *options, "Answer with the option's number from the given choices directly."))


def _mmvp(question: str, options: tuple[str, ...]) -> str:
    return " ".join((question, *options))


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="letter",
            labels="upper",
            about="question, options on lines of their own, LLaVA-1.5's instruction to answer by letter",
            write=_letter,
        ),
        Template(
            name="number",
            labels="numbers",
            about="as letter, with options named by numbers",
            write=_number,
        ),
        Template(
            name="mmvp",
            labels="bracketed",
            about="the free form of MMVP's own script: question and options in one line, no instruction",
            write=_mmvp,
        ),
    )
}
"""`letter` is the instruction of LLaVA-1.5 (arXiv 2310.03744), which lmms-eval's MMVP task uses too; `mmvp`
is the official script of "Eyes Wide Shut?" (arXiv 2401.06209)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPrompt:
    """What the model is told, and the bare label of each option in it."""

    text: str
    labels: tuple[str, ...]


def build_prompt(item: Item, template: str = "letter", *, labels: str | None = None) -> AskedPrompt:
    """The text that asks an item.

    Args:
        item: question and options, in the benchmark's order.
        template: a name in `TEMPLATES`.
        labels: a name in `LABEL_STYLES`; the template's own unless given.

    Raises:
        UserError: no such template or labels, or the labels contradict the template's instruction.
    """
    if template not in TEMPLATES:
        raise unknown("prompt template", template, TEMPLATES)
    chosen = TEMPLATES[template]
    style = chosen.labels if labels is None else labels
    if style not in LABEL_STYLES:
        raise unknown("label style", style, LABEL_STYLES)
    if template in ("letter", "number") and (style == "numbers") != (template == "number"):
        raise UserError(
            f"template {template!r} asks for the option's {template}; labels {style!r} do not fit"
        )
    names = LABEL_STYLES[style].labels(len(item.options))
    form = LABEL_STYLES[style].form
    options = tuple(f"{form.format(name)} {option}" for name, option in zip(names, item.options, strict=True))
    return AskedPrompt(text=chosen.write(item.question, options), labels=names)
