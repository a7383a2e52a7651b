"""Captions and images for encoders with a text tower: MMVP-VLM's score, the other way round, and both at once.

A match of k captions and k images is right from text to image where every caption is nearer to its own image than to any
other (the official score of MMVP-VLM for two and two: Tong et al. 2024, arXiv 2401.06209, section 3, and its
`evaluate_vlm.py`), from image to text where every image is nearer to its own caption, and as a group where both hold
(Winoground: Thrush et al. 2022, arXiv 2204.03162). One image with several captions has only the second (SugarCrepe:
Hsieh et al. 2023, arXiv 2306.14610).

Ties are wrong in all three. That is stricter than the official script, which gives a tie on the second caption to its
image; it differs where two similarities are the same number, as for two copies of a picture or a model in half precision.

Similarity is the cosine of float32 vectors, summed in float64 for each caption and image alone: equal vectors have equal
cosines, and no result depends on what else was in a batch. Vectors are as independent as the encoder makes them: on a CPU
pictures and texts run one at a time, on a GPU pictures run in batches of one fixed size.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import Incapable, UserError
from eyechart.core.images import open_image
from eyechart.core.records import Match, MatchSet
from eyechart.models.encoders.encoder import Encoder
from eyechart.score.match_scores import MatchScore, score_rows

Pictures = Callable[[Sequence[Image.Image]], Any]
"""RGB pictures to a vector each, as a tensor or an array: picture x dim."""

Texts = Callable[[Sequence[str]], Any]
"""Texts to vectors in the same space: text x dim."""

Progress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""

KEPT = 65_536
"""Vectors of images that a matcher remembers, so that a picture of many matches is embedded once."""


class Matcher:
    """Embeds captions and images, and compares them within each match."""

    def __init__(
        self, pictures: Pictures, texts: Texts, *, prefix: str = "", batch: int = 32, kept: int = KEPT
    ) -> None:
        """Take two callables.

        Args:
            pictures: the image tower; it is given `batch` pictures at most.
            texts: the text tower.
            prefix: put before each caption.
            batch: how many pictures are open at once.
            kept: how many images' vectors are remembered, those used last.
        """
        if batch < 1 or kept < 0:
            raise UserError(f"batch must be 1 or more and kept 0 or more, got {batch} and {kept}")
        self._pictures, self._texts = pictures, texts
        self._prefix, self._batch, self._kept = prefix, batch, kept
        self._known: OrderedDict[str, ndarray] = OrderedDict()

    @classmethod
    def of(cls, encoder: Encoder, *, prefix: str = "", batch: int = 32) -> "Matcher":
        """The matcher of a loaded encoder, by its `projected` vectors.

        Raises:
            Incapable: it has no text tower.
        """
        if "projected" not in encoder.poolings or encoder.kind != "clip_like":
            raise Incapable(
                f"{encoder.id} has no text tower, so it cannot match captions with images; give a set of questions in"
                " pairs instead, on which a vision-only encoder is read by probes"
            )
        return cls(
            lambda images: encoder.embed(images, pooling="projected", batch_size=batch),
            encoder.embed_texts,
            prefix=prefix,
            batch=batch,
        )

    def rows(self, matches: Sequence[Match]) -> list[dict[str, Any]]:
        """A line of the log for each match of a chunk; see `match_row`.

        Raises:
            UserError: an image cannot be read, or a tower gives no usable vectors; the match is named.
        """
        shown, said = self._shown(matches), self._said(matches)
        return [
            match_row(
                match,
                cosines(
                    np.stack([said[caption] for caption in match.captions]),
                    np.stack([shown[digest] for digest in match.images_sha256]),
                ),
            )
            for match in matches
        ]

    def _said(self, matches: Sequence[Match]) -> dict[str, ndarray]:
        captions = list(dict.fromkeys(caption for match in matches for caption in match.captions))
        vectors = _vectors(self._texts([self._prefix + caption for caption in captions]), captions)
        return dict(zip(captions, vectors, strict=True))

    def _shown(self, matches: Sequence[Match]) -> dict[str, ndarray]:
        """The vectors of a chunk's images by hash; pictures are opened a batch at a time."""
        wanted = {
            digest: (path, match.id)
            for match in matches
            for digest, path in zip(match.images_sha256, match.images, strict=True)
        }
        shown = {digest: self._known[digest] for digest in wanted if digest in self._known}
        missing = [digest for digest in wanted if digest not in shown]
        for start in range(0, len(missing), self._batch):
            some = missing[start : start + self._batch]
            pictures = [open_image(wanted[digest][0]).image for digest in some]
            vectors = _vectors(
                self._pictures(pictures), [f"{wanted[d][0]} of match {wanted[d][1]!r}" for d in some]
            )
            shown |= dict(zip(some, vectors, strict=True))
        for digest in wanted:
            self._known[digest] = shown[digest]
            self._known.move_to_end(digest)
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        return shown


def cosines(
    captions: Float[ndarray, "caption dim"], images: Float[ndarray, "image dim"]
) -> Float[ndarray, "caption image"]:
    """The cosine of each caption with each image, every one summed in the same order in float64."""
    said, shown = (_unit(np.asarray(rows, dtype=np.float64)) for rows in (captions, images))
    return np.asarray((said[:, None] * shown[None]).sum(axis=-1))


def match_row(match: Match, similarity: Float[ndarray, "caption image"]) -> dict[str, Any]:
    """A match as a line of the log.

    `similarity` is by caption, then image. `margin_text_to_image` has for each caption, `margin_image_to_text` for each
    image, the cosine with what belongs to it less the highest with what does not; a match is right where all its margins
    are above 0. With one image the margin is of that image alone, and `text_to_image` and `group` are null.
    """
    to_image, to_text = margins(similarity)
    forth = None if to_image is None else int(bool((to_image > 0).all()))
    back = int(bool((to_text > 0).all()))
    return {
        "doc_id": match.id,
        "doc": {
            "captions": list(match.captions),
            "images": [str(path) for path in match.images],
            "images_sha256": list(match.images_sha256),
            "pattern": match.pattern,
        },
        "similarity": similarity.tolist(),
        "margin_text_to_image": None if to_image is None else to_image.tolist(),
        "margin_image_to_text": to_text.tolist(),
        "text_to_image": forth,
        "image_to_text": back,
        "group": None if forth is None else forth * back,
    }


def margins(
    similarity: Float[ndarray, "caption image"],
) -> tuple[Float[ndarray, " caption"] | None, Float[ndarray, " image"]]:
    """For each caption and for each image, the right similarity less the best wrong one.

    Raises:
        ValueError: there are neither as many captions as images, two or more, nor one image with two captions or more.
    """
    captions, images = similarity.shape
    if images == 1 < captions:
        return None, similarity[:1, 0] - similarity[1:, 0].max(keepdims=True)
    if captions != images or captions < 2:
        raise ValueError(f"similarities of {captions} captions with {images} images are no match")
    wrong = np.where(np.eye(captions, dtype=bool), -np.inf, similarity)
    right = np.diagonal(similarity)
    return right - wrong.max(axis=1), right - wrong.max(axis=0)


def score_matches(
    pictures: Pictures,
    texts: Texts,
    found: MatchSet,
    *,
    batch: int = 32,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[MatchScore, list[dict[str, Any]]]:
    """Score a set in one go: the score, and a line for each match. It writes nothing.

    Args:
        pictures: the image tower, as `Encoder.embed`.
        texts: the text tower, as `Encoder.embed_texts`.
        found: what is to be matched; its prefix is put before each caption.
        batch: how many pictures are open at once.
        level: confidence of the intervals.
        resamples: how often matches are drawn again for the intervals of shares of captions and images.
        seed: of that drawing.
        progress: told how many matches are done.

    Raises:
        UserError: an image cannot be read, a tower gives no usable vectors, or there is no match.
    """
    rows: list[dict[str, Any]] = []
    matcher = Matcher(pictures, texts, prefix=found.prefix, batch=batch)
    for chunk in chunks_of(found.matches, batch):
        rows += matcher.rows(chunk)
        progress("matching", len(rows), len(found.matches))
    return score_rows(rows, level=level, resamples=resamples, seed=seed), rows


def chunks_of(matches: Sequence[Match], size: int) -> Iterator[Sequence[Match]]:
    """Matches some at a time, in their order."""
    for start in range(0, len(matches), size):
        yield matches[start : start + size]


def _vectors(given: Any, names: Sequence[str]) -> Float[ndarray, "row dim"]:
    """What a tower gave, as float32.

    Raises:
        UserError: another number of vectors than asked for, or one that is not finite or has no length.
    """
    array = given.detach().float().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
    vectors = array.astype(np.float32)
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise UserError(f"expected {len(names)} vectors, the encoder gave an array of shape {vectors.shape}")
    for name, vector in zip(names, vectors, strict=True):
        if not np.isfinite(vector).all() or not vector.any():
            what = "only zeros" if np.isfinite(vector).all() else "numbers that are not finite"
            raise UserError(
                f"the encoder gives {what} for {name!r}, which has no cosine with anything; check its weights, or use"
                " --dtype float32"
            )
    return vectors


def _unit(rows: Float[ndarray, "row dim"]) -> Float[ndarray, "row dim"]:
    return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))
