"""Where information is lost: knockouts, logit lens, part identification, layer probes and the verdict."""
