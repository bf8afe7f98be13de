"""The conformance kit: what every method and every dataset must do, as named checks.

``wsolbench check NAME`` runs the checks of a plugin. In the tests of a plugin each is one test::

    import pytest
    from wsolbench.checks import method_checks

    @pytest.mark.parametrize("check", method_checks("my-method"), ids=str)
    def test_my_method(check):
        check()

A check that a plugin is known to fail is declared there, with the reason, in ``known_failures``. A
declared failure that does not happen is a failure itself, so that declarations do not outlive it.
"""

from wsolbench.checks.datasets import dataset_checks
from wsolbench.checks.methods import method_checks
from wsolbench.checks.outcome import Check, Outcome, Status
from wsolbench.checks.plugin import check_plugin

__all__ = ["Check", "Outcome", "Status", "check_plugin", "dataset_checks", "method_checks"]
