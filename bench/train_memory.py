"""What a training step on a CPU gains when freed memory is kept for the next tensor (`core.devices.keep_freed_memory`).

Run: python bench/train_memory.py [ROUNDS]. The vision tower of the zoo's CLIP, 256 pictures a step, one thread. Two
processes take turns, with and without; they must come to the same loss. Minimum, median and maximum of pictures per
second over the rounds.
"""

import statistics
import subprocess
import sys

STEP = """
import sys, time, torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from eyechart.core.devices import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("freed memory cannot be kept here")
torch.set_num_threads(1)
torch.manual_seed(0)
model = CLIPVisionModel(CLIPVisionConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=6,
    num_attention_heads=4, image_size=96, patch_size=12, hidden_act="gelu"))
optimiser, pictures = torch.optim.AdamW(model.parameters()), torch.randn(256, 3, 96, 96)
for step in range(4):
    began = time.monotonic() if step == 1 else began if step else 0
    loss = model(pixel_values=pictures).pooler_output.square().mean()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
print(3 * len(pictures) / (time.monotonic() - began), loss.item())
"""


def speed(arm: str) -> tuple[float, str]:
    """Pictures per second, and the loss after the last step."""
    done = subprocess.run([sys.executable, "-c", STEP, arm], capture_output=True, text=True, check=True)
    pictures, loss = done.stdout.split()
    return float(pictures), loss


def main(rounds: int) -> None:
    """Both arms in turn, and what came out."""
    speeds: dict[str, list[float]] = {"kept": [], "given back": []}
    losses = set()
    for _ in range(rounds):
        for arm, found in speeds.items():
            pictures, loss = speed(arm)
            found.append(pictures)
            losses.add(loss)
    if len(losses) != 1:
        raise SystemExit(f"the losses differ: {losses}")
    for arm, found in speeds.items():
        print(f"{arm}: {min(found):.0f} to {statistics.median(found):.0f} to {max(found):.0f} pictures/s")
    ratios = [kept / other for kept, other in zip(*speeds.values(), strict=True)]
    print(f"ratio: {min(ratios):.2f} to {statistics.median(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
