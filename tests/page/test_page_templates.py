"""Every template can be made: one with an unknown filter would fail only in front of the person it is shown to."""

import pytest

from interlock.server.page.html import _templates

ENVIRONMENT = _templates()


@pytest.mark.parametrize("name", sorted(ENVIRONMENT.list_templates(extensions=["html"])))
def test_every_template_compiles(name):
    assert ENVIRONMENT.get_template(name).name == name
