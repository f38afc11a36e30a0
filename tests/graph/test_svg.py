"""SVG: well-formed whatever the names, everything drawn once, and nothing on top of something else."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from graphs import at_any_speed, dags
from hypothesis import given
from hypothesis import strategies as st

from eventic_core.errors import UnknownJob
from eventic_core.graph import Dag, NodeState, to_svg
from eventic_core.graph.layout import BOX, lay_out
from eventic_core.graph.looks import LOOKS, printable

SVG = "{http://www.w3.org/2000/svg}"
DIAMOND = Dag({"extract": [], "left": ["extract"], "right": ["extract"], "report": ["left", "right", "extract"]})


def titles(drawing: str) -> list[str]:
    """Give the tooltips of the nodes."""
    return [title.text or "" for title in ET.fromstring(drawing).iterfind(f"{SVG}g/{SVG}title")]


@at_any_speed
@given(st.dictionaries(st.text(st.characters()), st.text(st.characters()), max_size=6))
def test_any_names_and_notes_make_well_formed_xml(notes: dict[str, str]) -> None:
    drawing = to_svg(Dag({name: [] for name in notes}), notes=notes)
    drawing.encode()
    found = [title.splitlines() for title in titles(drawing)]
    assert found == [printable("\n".join(filter(None, pair))).splitlines() for pair in notes.items()]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '" onload="x', "a & b", "]]>", "<!--", "\ud800\x00"])
def test_a_name_is_text_and_never_markup(name: str) -> None:
    drawing = to_svg(Dag({name: []}))
    assert titles(drawing) == [printable(name)]
    assert {element.tag for element in ET.fromstring(drawing).iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "title", "defs", "marker", "path", "g", "rect", "text")
    }


def test_a_node_is_coloured_by_its_state_and_says_it() -> None:
    for state in NodeState:
        drawing = to_svg(DIAMOND, states={"left": state}, notes={"left": "for a reason"})
        assert drawing.count(f'fill="{LOOKS[state].fill}"') == 1
        assert titles(drawing)[1] == f"left\n{state.lower().replace('_', ' ')}\nfor a reason"
        assert f">{state.lower().replace('_', ' ')}</text>" in drawing


def test_mapped_nodes_are_stacks_and_branches_are_pointed() -> None:
    drawing = ET.fromstring(to_svg(DIAMOND, mapped=["left"], branches=["right"]))
    shapes = [
        [element.tag.removeprefix(SVG) for element in group if element.tag not in (f"{SVG}title", f"{SVG}text")]
        for group in drawing.iterfind(f"{SVG}g[@fill='#ffffff']")
    ]
    assert shapes == [["rect"], ["rect", "rect"], ["path"], ["rect"]]


def test_a_long_name_is_cut_and_whole_in_the_tooltip() -> None:
    for letter, kept in (("x", 31), ("日", 15), ("e\u0301", 31)):
        drawing = to_svg(Dag({letter * 60: []}))
        assert f">{letter * kept}…</text>" in drawing
        assert titles(drawing) == [letter * 60]


def test_an_empty_dag_is_an_empty_picture() -> None:
    assert titles(to_svg(Dag({}))) == []


@pytest.mark.parametrize(
    "marks", [{"states": {"b": NodeState.READY}}, {"mapped": ["b"]}, {"branches": ["b"]}, {"notes": {"b": "x"}}]
)
def test_marks_of_an_unknown_node_are_refused(marks: dict[str, list[str]]) -> None:
    with pytest.raises(UnknownJob, match="no job 'b'"):
        to_svg(Dag({"a": []}), **marks)


# -- the layout


@at_any_speed
@given(dags(), st.data())
def test_nothing_lies_on_something_else_and_all_lies_in_the_picture(dag: Dag, data: st.DataObject) -> None:
    layout = lay_out(dag, {node: data.draw(st.integers(40, 90)) for node in dag})
    for place in layout.boxes.values():
        assert 0 <= place.left < place.right <= layout.width
        assert BOX // 2 <= place.middle <= layout.height - BOX // 2
    for one, other in combinations(layout.boxes.values(), 2):
        assert one.left >= other.right or other.left >= one.right or abs(one.middle - other.middle) > BOX
    for passage in layout.passages:
        for place in layout.boxes.values():
            assert passage.left != place.left or abs(passage.middle - place.middle) > BOX // 2


@at_any_speed
@given(dags())
def test_each_edge_leads_from_its_node_to_the_other_always_to_the_right(dag: Dag) -> None:
    layout = lay_out(dag, dict.fromkeys(dag, 50))
    nodes = {place: node for node, place in layout.boxes.items()}
    assert len(nodes) == len(dag)
    assert all(start.right < end.left for start, end in layout.links)

    def reached(place: object) -> set[str]:
        ends = [end for start, end in layout.links if start == place]
        return set().union(*({nodes[end]} if end in nodes else reached(end) for end in ends))

    assert {node: reached(place) for node, place in layout.boxes.items()} == {
        node: set(dag.downstream(node)) for node in dag
    }


def test_layers_are_sorted_so_that_rows_of_jobs_do_not_cross() -> None:
    rows = 12
    upstream: dict[str, list[str]] = {}
    for layer in range(5):
        for row in sorted(range(rows), key=lambda row, layer=layer: (row * 7 + layer * 5) % rows):
            upstream[f"{layer}.{row}"] = [f"{layer - 1}.{row}"] if layer else []
    layout = lay_out(Dag(upstream), dict.fromkeys(upstream, 50))
    assert all(start.middle == end.middle for start, end in layout.links)


def test_some_hundred_nodes_are_drawn_the_same_each_time() -> None:
    upstream = {f"j{n}": [f"j{n - k}" for k in (1, 7, 60) if n - k >= 0 and (n * k) % 3] for n in range(400)}
    drawing = to_svg(Dag(upstream))
    assert drawing == to_svg(Dag(upstream))
    assert len(titles(drawing)) == 400
    assert re.search(r"https?://(?!www\.w3\.org/2000/svg)|<style|<image|<script", drawing) is None
