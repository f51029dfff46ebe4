import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from automix.reporting.html import render
from automix.reporting.page import Source


def test_text_is_escaped_and_finished_html_is_not() -> None:
    source = Source(command="<b> & \"x\" 'y'", versions={"<i>": "1"})
    html = render("source", source=source)
    assert isinstance(html, Markup)
    assert "<code>&lt;b&gt; &amp; &#34;x&#34; &#39;y&#39;</code>" in html
    assert "<li>&lt;i&gt; 1</li>" in html


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="source"):
        render("source")
