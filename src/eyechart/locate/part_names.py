"""What the part codes of Pascal-Part and PASCAL Panoptic Parts mean, as explicit tables.

Sources: the part numbers of PASCAL Panoptic Parts are those of `ppp_datasetspec.yaml` in pmeletis/panoptic_parts
(Meletis et al., 2020, arXiv 2004.07944); the codes are Pascal-Part's (Chen et al., 2014, "Detect What You Can",
`part2ind.m`), whose comments say what each stands for.

The codes mislead where they look like words: `rear` is the right ear and `lear` the left one, `lleg` is a bird's left
leg while a person has `llleg` and `luleg`, `head` of a train is its head car, whose sides take the prefix `h`, and
those of its coaches `c`. So nothing is taken apart by rule: `WORDS` has a row for every code, and what is in no row is
no part.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

Words: TypeAlias = Literal["folded", "full", "code"]
"""How a part is called: `folded` leaves out sides ("leg"), `full` names them ("left front leg"), `code` is the
dataset's own string ("lfleg"). Numbers (the second wheel) are left out in all three."""


class Word(NamedTuple):
    """The English of a code."""

    full: str
    folded: str
    """Without side: the word that a person would say, in one word."""


CLASSES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The objects, in the order of their semantic ids, from 1. Ids above are stuff, which has no parts."""

OBJECT_WORDS: Mapping[str, str] = MappingProxyType({"pottedplant": "potted plant", "tvmonitor": "tv monitor"})
"""Objects whose code is no English; the other ones are called what they are."""

_SIDES = "frontside leftside rightside backside roofside"
_CAR = f"{_SIDES} leftmirror rightmirror fliplate bliplate door*10 wheel*10 headlight*10 window*20"
_CAT = "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail"
_LEGS = "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg"
_COW = f"head leye reye lear rear muzzle lhorn rhorn torso neck {_LEGS} tail"

_LISTED: Mapping[str, str] = {
    "aeroplane": "body stern lwing rwing tail engine*10 wheel*10",
    "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "bottle": "cap body",
    "bus": _CAR,
    "car": _CAR,
    "cat": _CAT,
    "cow": _COW,
    "dog": f"{_CAT} muzzle",
    "horse": f"head leye reye lear rear muzzle lfho rfho lbho rbho torso neck {_LEGS} tail",
    "motorbike": "fwheel bwheel handlebar saddle headlight*10",
    "person": "head leye reye lear rear lebrow rebrow nose mouth hair torso neck llarm luarm lhand rlarm ruarm rhand"
    " llleg luleg lfoot rlleg ruleg rfoot",
    "pottedplant": "pot plant",
    "sheep": _COW,
    "train": "head hfrontside hleftside hrightside hbackside hroofside headlight*10 coach*10 cfrontside*10 cleftside*10"
    " crightside*10 cbackside*10 croofside*10",
    "tvmonitor": "screen frame",
}
"""The codes of each object in the order of the part ids of PASCAL Panoptic Parts; `*10` takes ten ids."""


def _numbered(listed: str) -> tuple[str, ...]:
    """A code for each part id, from 1."""
    pairs = (code.partition("*") for code in listed.split())
    return tuple(code for code, _, times in pairs for _ in range(int(times or 1)))


PART_IDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: _numbered(listed) for name, listed in _LISTED.items()}
)
"""For each object the code of every part id of PASCAL Panoptic Parts, from 1; repeated parts have several ids."""

CODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(dict.fromkeys(codes)) for name, codes in PART_IDS.items()}
)
"""For each object with parts its codes, each once: 194 in all, of 90 different strings."""

COUNTED: frozenset[str] = frozenset(
    "engine wheel door headlight window coach cfrontside cleftside crightside cbackside croofside".split()
)
"""Codes that Pascal-Part writes with a number behind them, as `wheel_2`."""

WORDS: Mapping[str, Word] = MappingProxyType(
    {
        # said by the code itself
        **{
            word: Word(word, word)
            for word in (
                "body stern tail engine wheel saddle handlebar chainwheel headlight head beak torso neck cap door window"
                " nose muzzle mouth hair pot plant coach screen frame"
            ).split()
        },
        # bicycle, motorbike
        "fwheel": Word("front wheel", "wheel"),
        "bwheel": Word("back wheel", "wheel"),
        # creatures
        "leye": Word("left eye", "eye"),
        "reye": Word("right eye", "eye"),
        "lear": Word("left ear", "ear"),
        "rear": Word("right ear", "ear"),
        "lebrow": Word("left eyebrow", "eyebrow"),
        "rebrow": Word("right eyebrow", "eyebrow"),
        "lhorn": Word("left horn", "horn"),
        "rhorn": Word("right horn", "horn"),
        "lwing": Word("left wing", "wing"),
        "rwing": Word("right wing", "wing"),
        "lleg": Word("left leg", "leg"),
        "rleg": Word("right leg", "leg"),
        "lfoot": Word("left foot", "foot"),
        "rfoot": Word("right foot", "foot"),
        "lfleg": Word("left front leg", "leg"),
        "rfleg": Word("right front leg", "leg"),
        "lbleg": Word("left back leg", "leg"),
        "rbleg": Word("right back leg", "leg"),
        "lfpa": Word("left front paw", "paw"),
        "rfpa": Word("right front paw", "paw"),
        "lbpa": Word("left back paw", "paw"),
        "rbpa": Word("right back paw", "paw"),
        "lfho": Word("left front hoof", "hoof"),
        "rfho": Word("right front hoof", "hoof"),
        "lbho": Word("left back hoof", "hoof"),
        "rbho": Word("right back hoof", "hoof"),
        "lfuleg": Word("left front upper leg", "leg"),
        "lflleg": Word("left front lower leg", "leg"),
        "rfuleg": Word("right front upper leg", "leg"),
        "rflleg": Word("right front lower leg", "leg"),
        "lbuleg": Word("left back upper leg", "leg"),
        "lblleg": Word("left back lower leg", "leg"),
        "rbuleg": Word("right back upper leg", "leg"),
        "rblleg": Word("right back lower leg", "leg"),
        "luarm": Word("left upper arm", "arm"),
        "llarm": Word("left lower arm", "arm"),
        "ruarm": Word("right upper arm", "arm"),
        "rlarm": Word("right lower arm", "arm"),
        "lhand": Word("left hand", "hand"),
        "rhand": Word("right hand", "hand"),
        "luleg": Word("left upper leg", "leg"),
        "llleg": Word("left lower leg", "leg"),
        "ruleg": Word("right upper leg", "leg"),
        "rlleg": Word("right lower leg", "leg"),
        # bus, car
        "frontside": Word("front side", "front"),
        "leftside": Word("left side", "side"),
        "rightside": Word("right side", "side"),
        "backside": Word("back side", "back"),
        "roofside": Word("roof side", "roof"),
        "leftmirror": Word("left mirror", "mirror"),
        "rightmirror": Word("right mirror", "mirror"),
        "fliplate": Word("front license plate", "plate"),
        "bliplate": Word("back license plate", "plate"),
        # train
        "hfrontside": Word("front side of the head car", "front"),
        "hleftside": Word("left side of the head car", "side"),
        "hrightside": Word("right side of the head car", "side"),
        "hbackside": Word("back side of the head car", "back"),
        "hroofside": Word("roof side of the head car", "roof"),
        "cfrontside": Word("front side of a coach", "front"),
        "cleftside": Word("left side of a coach", "side"),
        "crightside": Word("right side of a coach", "side"),
        "cbackside": Word("back side of a coach", "back"),
        "croofside": Word("roof side of a coach", "roof"),
    }
)
"""The English of every code."""

OF_ONE_OBJECT: Mapping[tuple[str, str], Word] = MappingProxyType(
    {("train", "head"): Word("head car", "head")}
)
"""Codes that mean something else on one object than on the others."""


def object_word(code: str, words: Words) -> str:
    """What an object is called; the code itself where `words` asks for it."""
    return code if words == "code" else OBJECT_WORDS.get(code, code)


def part_word(name: str, code: str, words: Words) -> str | None:
    """What a part is called, or None where the tables have no such part of such an object: it is never guessed.

    Args:
        name: the object, as `CLASSES` has it.
        code: the part's code; a number behind one of `COUNTED` is left out.
        words: how it is to be called.

    >>> part_word("cat", "rear", "full"), part_word("cat", "rear", "folded"), part_word("bird", "llleg", "full")
    ('right ear', 'ear', None)
    """
    bare, mark, number = code.rpartition("_")
    if mark and number.isascii() and number.isdigit() and bare in COUNTED:
        code = bare
    if code not in CODES.get(name, ()):
        return None
    word = OF_ONE_OBJECT.get((name, code), WORDS[code])
    return {"code": code, "full": word.full, "folded": word.folded}[words]
