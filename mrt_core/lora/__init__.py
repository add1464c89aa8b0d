"""LoRA: files of low-rank changes to a transformer's weights, in every naming that is in use
(architecture: LoRA names)."""
