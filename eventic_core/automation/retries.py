"""How often what is declared is tried: one policy, or one for each class of error."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from eventic_core.runtime import Retry

Retries = Retry | Mapping[type[BaseException], Retry]


class Retried:
    """What has a `retry`: an automation, or a job."""

    retry: Retries

    @functools.cached_property
    def max_attempts(self) -> int:
        """The most attempts that any error allows."""
        policies = self.retry.values() if isinstance(self.retry, Mapping) else [self.retry]
        return max((policy.max_attempts for policy in policies), default=1)

    def retry_for(self, error: BaseException) -> Retry:
        """Give how an error is retried: by the policy of its nearest class; without one, not at all."""
        if not isinstance(self.retry, Mapping):
            return self.retry
        return next((self.retry[cls] for cls in type(error).__mro__ if cls in self.retry), Retry())
