"""What a 2x2 of knockouts says, in words that claim no more than it shows."""

from eyechart.core.stats import Estimate, Ratio
from eyechart.locate.compensate import ArmAtLayer, Compensation

CAUTION = "A knockout shows what the model can do when a path is cut, not what it does in normal use."


def summary(found: Compensation, layer: int) -> str:
    """The 2x2 at one language layer, chosen beforehand or on other scenes.

    Raises:
        UserError: that layer was not read.
    """
    here = found.at(layer)
    lines = [
        f"{found.n} parts in {found.images} images, read after language layer {layer} (scale: {found.scale}).",
        _intact(found, layer),
        *([_missing(found.at(0))] if 0 in found.layers else []),
        _language(here),
        _recovered(found, here),
        *_controls(found, layer),
        *found.notes,
        CAUTION,
    ]
    return "\n".join(lines)


def _intact(found: Compensation, layer: int) -> str:
    here = found.intact[found.layers.index(layer)]
    return f"Intact, the part's name is {'readable' if here.low > 0 else 'not shown to be readable'}: {_short(here)}."


def _missing(first: ArmAtLayer) -> str:
    lost, kept = first.effects["vision cut"], first.retained["vision cut"]
    if lost.low > 0:
        return f"The vision cut takes {_short(lost)} before the language model; retained {_share(kept)}."
    if lost.high < 0:
        return f"The vision cut makes the name more readable before the language model, by {_short(lost)}."
    return (
        f"The vision cut is not shown to take anything before the language model ({_short(lost)}), so there is nothing"
        " that was shown to need recovery."
    )


def _language(here: ArmAtLayer) -> str:
    lost = here.effects["language cut"]
    words = "lowers" if lost.low > 0 else "raises" if lost.high < 0 else "is not shown to change"
    return f"With vision intact, the language cut {words} the readout: by {_short(lost)}."


def _recovered(found: Compensation, here: ArmAtLayer) -> str:
    share = here.recovered
    assert share is not None
    needed = 0 not in found.layers or found.at(0).effects["vision cut"].low > 0
    if share.value is None:
        return f"Whether language attention can recover anything is undefined: {share.undefined}."
    more = share.numerator.low > 0
    if not more:
        return f"Under ablation no recovery by language attention is shown: {_share(share)}."
    if not needed:
        return f"Language attention adds {_share(share)} of what both cuts take away; recovery is no word for it (see above)."
    return (
        f"Language attention can recover under ablation {_share(share)} of what both cuts take away; interaction"
        f" {_short(here.interaction)}."
    )


def _controls(found: Compensation, layer: int) -> list[str]:
    lines = []
    for name in found.arms:
        if name == found.main:
            continue
        arm = found.at(layer, name)
        words = [f"{cell} retains {_share(kept)}" for cell, kept in arm.retained.items()]
        if arm.recovered is not None:
            words.append(f"recovered {_share(arm.recovered)}")
        lines.append(f"Control {name}: {'; '.join(words)}.")
    return lines


def _short(found: Estimate | None) -> str:
    return "not measured" if found is None else f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _share(found: Ratio) -> str:
    if found.value is None:
        return f"undefined ({found.undefined})"
    if found.low is None or found.high is None:
        return f"{found.value:.0%} (no resample differs)"
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]"
