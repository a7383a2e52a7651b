"""Cards in Markdown: a page for each model's folder, and the gate as a section of the study."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined

_WHAT = {
    "clip": "A small CLIP trained on pictures of Eyechart's controlled world and captions of it.",
    "vision": "A small vision-only encoder trained on pictures of Eyechart's controlled world, without a word.",
    "language": "A small Llama trained on the text of Eyechart's controlled world. It has never seen a picture.",
    "mixture": "A small VLM that sees through a CLIP and a vision-only encoder of the zoo, taught as its LLaVAs are.",
    "vlm": "A small LLaVA made of one of the zoo's CLIPs and its language model, taught questions about the world.",
}

_CARD = """---
license: apache-2.0
library_name: transformers
tags: [eyechart]
---
# {{ card.name }}

{{ what }} It is a test bed with a known truth, of no use on photographs.

The sha256 of `model.safetensors` is `{{ card.sha256 }}`. Every number below was computed from these weights by `eyechart.recipes.cards`, on test
scenes that no training or choice has used; intervals are 95 %, from drawing pairs of scenes anew unless they are Wilson's.
{% if card.clip is defined %}
## Zero-shot and retrieval

| test | right | chance |
| --- | --- | --- |
| kind | {{ rate(card.clip.zero_shot.kind) }} | {{ pc(card.clip.zero_shot.chance.kind) }} |
| colour, the kind given | {{ rate(card.clip.zero_shot.color) }} | {{ pc(card.clip.zero_shot.chance.color) }} |
{% for name, row in card.clip.retrieval.items() -%}
{% for way in ("text_to_image", "image_to_text") -%}
| R@1 {{ way.replace("_", " ") }}, {{ name }} captions, pool of {{ row.pool }} ({{ row.distinct_captions }} distinct) | \
{{ rate(row[way]) }} | {{ pc(row.chance) }} |
{% endfor %}{% endfor %}
## Pairs of statements (MMVP-VLM-shaped)

Both statements must pick their picture (text to image, the official score), both pictures their statement, or both;
ties are wrong. Chance: 25 %, 25 %, 17 %.

| pattern | text to image | image to text | group |
| --- | --- | --- | --- |
{% for pattern, row in card.clip.statements.items() -%}
| {{ pattern }} | {{ hits(row.text_to_image) }} | {{ hits(row.image_to_text) }} | {{ hits(row.group) }} |
{% endfor %}{% endif %}
{%- if card.readability is defined %}
## Readability

Share of scenes whose fact a probe reads rightly, pairs kept together in {{ card.folds }}-fold cross-validation. `patches` is
hidden layer -2, which the VLMs read; shuffled is the linear probe of it with labels dealt out anew. Raw pixels and
histograms of gradients are what nobody trained.

| pattern | n | chance | shuffled | {% for name in readings %}{{ name }} | {% endfor %}
| --- | --- | --- | --- | {% for name in readings %}--- | {% endfor %}
{% for pattern, rows in card.readability.items() -%}
| {{ pattern }} | {{ rows["patches linear"].accuracy.n }} | {{ pc(rows["patches linear"].chance) }} | \
{{ pc(rows["patches linear"].shuffled.value) }} | \
{% for name in readings %}{{ estimate(rows[name].accuracy) }} | {% endfor %}
{% endfor %}{% endif %}
{%- if card.minus_biased is defined %}
Difference to the biased CLIP on the same scenes, in points:

| pattern | {% for name in differences %}{{ name }} | {% endfor %}
| --- | {% for name in differences %}--- | {% endfor %}
{% for pattern, rows in card.minus_biased.items() -%}
| {{ pattern }} | {% for name in differences %}{{ points(rows[name]) }} | {% endfor %}
{% endfor %}{% endif %}
{%- if card.siblings is defined %}
## Sibling differences (selection scenes)

How often a scene's pooled vector is nearer to the sibling with the same facts than to the one with a fact changed; half
is chance. The default reference is the vision-only encoder, and the pooling, with the highest score over all patterns.

| pattern | {% for name in card.siblings %}{{ name }} | {% endfor %}
| --- | {% for name in card.siblings %}--- | {% endfor %}
{% for pattern in sibling_rows -%}
| {{ pattern }} | {% for name in card.siblings %}{{ rate(card.siblings[name][pattern]) }} | {% endfor %}
{% endfor %}{% endif %}
{%- if card.language is defined %}
## Language

Perplexity on {{ card.language.texts }} unseen texts: {{ number(card.language.perplexity) }}; by single tokens' frequencies:
{{ "%.1f" | format(card.language.unigram) }}. Questions on scenes told in words answered rightly:
{{ rate(card.language.answers) }}, n={{ card.language.answers.n }} (two options, chance about 50 %).
{% endif %}
{%- if card.vlm is defined %}
## Pairs of pictures

Share of pairs with both answers right (Wilson), chance 25 %. A blank picture earns no pair by construction, since a pair
has one question, so its share of single items is given (chance 50 %); `told` is the scene in words, without a picture.

| pattern | picture | told | blank, items |
| --- | --- | --- | --- |
{% for row in card.vlm.picture.patterns -%}
| {{ row.pattern }} | {{ rate(row.pairs) }} | {{ rate(card.vlm.told.patterns[loop.index0].pairs) }} | \
{{ rate(card.vlm.blank.patterns[loop.index0].images) }} |
{% endfor -%}
| all | {{ rate(card.vlm.picture.score.pairs) }} | {{ rate(card.vlm.told.score.pairs) }} | \
{{ rate(card.vlm.blank.score.images) }} |

By family of questions:

| pattern | family | picture | told |
| --- | --- | --- | --- |
{% for row in card.vlm.picture.families -%}
| {{ row.pattern }} | {{ row.family }} | {{ hits(row.pairs) }} | {{ hits(card.vlm.told.families[loop.index0].pairs) }} |
{% endfor %}{% endif %}
{%- if card.lens is defined %}
## Logit lens

The best rank of a part's name over the patches that show it, against the best over as many patches of the same outline
elsewhere: {{ number(card.lens.ratio) }} times better (median, n={{ card.lens.ratio.n }}) at layer {{ card.lens.layer }}, which
was chosen on selection scenes. Median ranks {{ card.lens.median_rank_mask }} and {{ card.lens.median_rank_random }}.
{% endif %}"""

_GATE = """| condition | met | found |
| --- | --- | --- |
{% for row in gate.conditions -%}
| {{ row.condition }} | {{ {true: "yes", false: "no", none: "not measured"}[row.met] }} | {{ row.found }} |
{% endfor %}"""


def model_card(card: Mapping[str, Any]) -> str:
    """The README of a model's folder."""
    first = next(iter(card.get("readability", {"": {}}).values()))
    differences = next(iter(card.get("minus_biased", {"": {}}).values()))
    siblings = next(iter(card.get("siblings", {"": {}}).values()))
    return _environment().from_string(_CARD).render(
        card=card,
        what=_WHAT[card["kind"]],
        readings=list(first),
        differences=list(differences),
        sibling_rows=list(siblings),
    )  # fmt: skip


def gate_page(gate: Mapping[str, Any]) -> str:
    """The gate as a Markdown table."""
    return _environment().from_string(_GATE).render(gate=gate)


def _environment() -> Environment:
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.globals.update(
        rate=_rate, pc=_percent, hits=_hits, estimate=_rate, points=_points, number=_number
    )
    return environment


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{rate['value']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"


def _hits(rate: Mapping[str, Any]) -> str:
    return f"{rate['hits']} of {rate['n']} [{rate['low']:.0%}, {rate['high']:.0%}]"


def _points(estimate: Mapping[str, Any]) -> str:
    return f"{100 * estimate['value']:+.0f} [{100 * estimate['low']:+.0f}, {100 * estimate['high']:+.0f}]"


def _number(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
