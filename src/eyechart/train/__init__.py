"""The training room: one loop over the HF Trainer, the tokenizer, and the losses the zoo is trained with."""
