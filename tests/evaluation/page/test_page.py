"""What pages are made of: escaping, scales, and which pictures are shown."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from auravae_cli.evaluation.page.charts import Scale, Series, line_chart, ticks
from auravae_cli.evaluation.page.markup import Markup, data_uri, join, number, table, tag
from auravae_cli.evaluation.pictures import Album, choose


def test_what_is_no_markup_is_escaped():
    assert tag("p", "<script>", class_='"x"') == '<p class="&quot;x&quot;">&lt;script&gt;</p>'
    assert tag("p", Markup("<b>"), 3, None, ["a&", Markup("&amp;")]) == "<p><b>3a&amp;&amp;</p>"
    assert tag("input", type="radio", checked=True, disabled=False, name=None) == (
        '<input type="radio" checked>'
    )
    assert join("a\x00b\x1bc\udcff") == "a\ufffdb\ufffdc\ufffd"
    assert "region" in table("<i>", ["a"], [["b"]]) and "<i>" not in table("<i>", ["a"], [["b"]])


@given(st.text(max_size=40))
def test_any_name_is_text(name):
    from html.parser import HTMLParser

    seen = []

    class Parser(HTMLParser):
        def handle_starttag(self, name, attributes):
            seen.append((name, attributes))

    Parser().feed(tag("p", name, title=name))
    assert [(n, [k for k, _ in a]) for n, a in seen] == [("p", ["title"])]
    assert tag("p", name).encode()


def test_numbers():
    assert number(None, "{:.2f}") == "\u2013"
    assert number(-0.0001, "{:.2f}") == "0.00"
    assert number(-0.5, "{:.2f}") == "-0.50"
    assert number(0.00002, "{:.3%}") == "0.002%"


def test_data_uris():
    assert data_uri(b"\x89PNG...").startswith("data:image/png;base64,")
    assert data_uri(b"RIFF....").startswith("data:image/webp;base64,")


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_span_the_values(low, span):
    found = ticks(low, low + span)
    slack = 2e-6 * max(1, abs(low) + span)
    assert found[0] <= low + slack and found[-1] >= low + span - slack
    assert 2 <= len(found) <= 8
    assert found == sorted(set(found))


def test_charts_of_single_points():
    chart = line_chart("c", "t", "d", [Series("one", [(0.0, 3.0)])], ("x", "y"))
    assert "nan" not in chart and 'role="img"' in chart and "<title" in chart
    assert Scale(0, 10, 100, 0)(2.5) == 75


def rows(number):
    return [
        {"model": "a", "picture": f"{n:03}", "psnr": None if n == number - 1 else float(n)}
        for n in range(number)
    ]


def test_all_are_shown_where_they_fit():
    choice = choose(rows(5)[::-1], None, 5)
    assert choice.groups == (("", ("000", "001", "002", "003", "004")),)
    assert choice.featured == "000"
    assert choose(rows(5), "003", 5).featured == "003"
    assert choose(rows(1), "gone", 30).names == ("000",)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 30, 499])
def test_of_many_the_worst_the_median_and_the_best(limit):
    choice = choose(rows(500), "400", limit)
    shown = [name for _, names in choice.groups for name in names]
    assert len(shown) == len(set(shown)) == limit
    assert shown == sorted(shown)
    assert shown[0] == "000"
    assert set(choice.names) == {*shown, "400"}
    groups = dict(choice.groups)
    if limit >= 4:
        assert shown[-1] == "499"
        middle = [int(name) for name in groups["Around the median"]]
        assert abs(sum(middle) / len(middle) - 249.5) < max(2, limit - 300)


@pytest.mark.parametrize("limit", [1, 2, 5, 9, 30, 60])
def test_the_page_begins_where_models_differ_most(limit):
    others = [{**row, "model": "b"} for row in rows(40)]
    for place, gain in ((7, 3.0), (20, -5.0), (33, 1.0)):
        others[place]["psnr"] += gain
    choice = choose(rows(40) + others, None, limit)
    shown = [name for _, names in choice.groups for name in names]
    assert len(shown) == len(set(shown)) == min(limit, 40)
    title, names = choice.groups[0]
    assert title == "Where the models differ most"
    assert names == ("020", "007", "033")[: max(1, limit // 4)]
    assert choose(rows(1) + [{**rows(1)[0], "model": "b"}], None, 5).groups == (("", ("000",)),)


def test_albums(tmp_path):
    album = Album(tmp_path)
    assert album.find("key", "original.webp") is None
    album.add("key", "original.webp", b"RIFF....")
    assert Album(tmp_path).find("key", "original.webp") == b"RIFF...."
    assert Album(tmp_path).find("other", "original.webp") is None
    (path,) = tmp_path.rglob("*.webp")
    path.write_bytes(b"")
    assert Album(tmp_path).find("key", "original.webp") is None
    assert album.has("key", ["original.webp"]) and not Album(tmp_path).has("key", ["original.webp"])
    Album(None).add("key", "original.webp", b"RIFF....")
