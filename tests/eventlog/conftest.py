"""The contract's module is no test module by its name: its assertions shall explain themselves too."""

import pytest

pytest.register_assert_rewrite("tests.eventlog.contract")
