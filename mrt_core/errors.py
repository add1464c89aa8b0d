"""The one error type that users meet."""


class MRTError(ValueError):
    """Bad input, said in one sentence: the value, the rule it breaks, and the remedy."""
