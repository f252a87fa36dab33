"""Forgetting a shopper: what was stored of them is erased, and does not come back."""

from pipelines.maintain.forget.stage import Forgot, forget, forget_again

__all__ = ["Forgot", "forget", "forget_again"]
