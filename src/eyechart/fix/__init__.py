"""What mixtures and distilled models are taught with and compared by: formats of answers, presence of objects."""
