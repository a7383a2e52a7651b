"""Options that the commands which ask a model have in common."""

from typing import Annotated

import typer

Template = Annotated[
    str, typer.Option(help="How the question is put: letter, number or mmvp (the official free form).")
]
MaxNewTokens = Annotated[int, typer.Option(help="Longest reply, in tokens.")]
Adapter = Annotated[str | None, typer.Option(help="A PEFT adapter to load on top of the model.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing.")]
BatchSize = Annotated[str, typer.Option(help="Questions at a time, or 'auto'.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")]
DeviceMap = Annotated[str | None, typer.Option(help="accelerate's device map, such as 'auto'.")]
Attn = Annotated[
    str | None, typer.Option(help="Attention implementation: eager, sdpa, flash_attention_2 ...")
]
Revision = Annotated[str | None, typer.Option(help="The model's revision on the hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the checkpoint.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; load no weights.")]
