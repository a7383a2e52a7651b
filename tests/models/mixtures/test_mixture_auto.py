"""`import eyechart.models` makes mixtures known to the Auto classes, before or after transformers, and loads neither."""

import json
import subprocess
import sys

import pytest

from mixture_parts import mixture, noise

KNOWN = """
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
print(json.dumps([type(AutoConfig.from_pretrained(sys.argv[1])).__name__,
                  type(AutoModelForImageTextToText.from_pretrained(sys.argv[1])).__name__,
                  type(AutoProcessor.from_pretrained(sys.argv[1])).__name__]))
"""


def run_python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", "import json, sys\n" + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    model, processor = mixture("interleaved")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert len(processor(text=["<image>"], images=[noise()])["input_ids"][0]) == 99
    return tmp_path


def test_importing_the_room_loads_neither_torch_nor_transformers():
    heavy = ["torch", "transformers"]
    assert (
        run_python(f"import eyechart.models\nprint(json.dumps([m for m in {heavy} if m in sys.modules]))")
        == []
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    ["import eyechart.models", "from transformers import AutoModelForImageTextToText, AutoProcessor\nimport eyechart.models"],
    ids=["before", "after"],
)  # fmt: skip
def test_a_saved_mixture_loads_by_the_auto_classes(first, folder):
    wanted = ["MixtureConfig", "MixtureForConditionalGeneration", "MixtureProcessor"]
    assert run_python(first + KNOWN, str(folder)) == wanted


@pytest.mark.slow
def test_loaders_work_as_before_once_and_twice():
    code = "import eyechart.models\nfrom eyechart.models.mixtures.registration import register_mixtures\nregister_mixtures()\n"
    code += "import transformers.models.auto.configuration_auto as auto\nregister_mixtures()\n"
    code += "print(json.dumps([type(auto.__spec__.loader).__name__, sum(type(f).__name__ == '_Waiting' for f in sys.meta_path)]))"
    assert run_python(code) == ["SourceFileLoader", 1]
