"""PSD and PSB: read and written."""
