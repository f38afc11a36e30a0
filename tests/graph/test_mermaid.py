"""Mermaid text: the whole DAG, and labels that mean nothing to Mermaid, whatever they say."""

from __future__ import annotations

import re

import pytest
from graphs import at_any_speed, dags
from hypothesis import given
from hypothesis import strategies as st

from eventic_core.errors import UnknownJob
from eventic_core.graph import Dag, NodeState, to_mermaid
from eventic_core.graph.looks import printable

# a label has letters, digits, hyphens and underscores in words, and characters by number, on lines of its own
NODE = re.compile(r'    n\d+(?:\[|\[\[|\{)"((?:[^\W_]|(?<=[^\W_])[-_](?=[^\W_])| |#\d+;|<br/>)*)"(?:\]|\]\]|\})')
anything = st.text(st.characters()) | st.sampled_from(
    ['"]; n0 --> n0', "%%{init: {}}%%", "end", "1. x", "__x__", "a\r\nb"]
)


def shown(label: str) -> list[str]:
    """Read a label as Mermaid shows it."""
    lines = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label.replace("<br/>", "\n")).split("\n")
    return [" ".join(line.split()) for line in lines]


def test_a_dag_is_a_flowchart() -> None:
    dag = Dag({"extract": [], "load": ["extract"], "gate": ["load"], "publish": ["gate", "extract"]})
    states = {"extract": NodeState.COMPLETED, "load": NodeState.FAILED, "gate": NodeState.UPSTREAM_FAILED}
    assert to_mermaid(dag, states=states, mapped=["load"], branches={"gate"}) == (
        "flowchart LR\n"
        '    n0["extract"]\n'
        '    n1[["load"]]\n'
        '    n2{"gate"}\n'
        '    n3["publish"]\n'
        "    n0 --> n1\n"
        "    n1 --> n2\n"
        "    n2 --> n3\n"
        "    n0 --> n3\n"
        "    classDef COMPLETED fill:#dcfce7,stroke:#15803d,color:#18181b\n"
        "    class n0 COMPLETED\n"
        "    classDef FAILED fill:#fecaca,stroke:#b91c1c,color:#18181b\n"
        "    class n1 FAILED\n"
        "    classDef UPSTREAM_FAILED fill:#ffedd5,stroke:#c2410c,color:#18181b,stroke-dasharray:4 3\n"
        "    class n2 UPSTREAM_FAILED\n"
    )


def test_an_empty_dag_is_an_empty_flowchart() -> None:
    assert to_mermaid(Dag({})) == "flowchart LR\n"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("load_orders-2", "load_orders-2"),
        ("größe 日本", "größe 日本"),
        ('say "hi"', "say #34;hi#34;"),
        ("a[b](c){d}", "a#91;b#93;#40;c#41;#123;d#125;"),
        ("<b>#quot;&", "#60;b#62;#35;quot#59;#38;"),
        ("two\nlines", "two<br/>lines"),
        ("`code` **bold** _it_", "#96;code#96; #42;#42;bold#42;#42; #95;it#95;"),
        ("1. first", "1#46; first"),
        ("- item", "#45; item"),
        ("", "#32;"),
        ("\x00", "#65533;"),
    ],
)
def test_a_label_is_shown_and_never_read(name: str, label: str) -> None:
    assert to_mermaid(Dag({name: []})) == f'flowchart LR\n    n0["{label}"]\n'


@at_any_speed
@given(st.lists(anything, unique=True, max_size=8))
def test_any_names_make_as_many_labels_that_show_them(names: list[str]) -> None:
    lines = to_mermaid(Dag({name: [] for name in names})).split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("flowchart LR", "", len(names) + 2)
    for name, line in zip(names, lines[1:-1], strict=True):
        label = NODE.fullmatch(line)
        assert label, line
        assert shown(label[1]) == [" ".join(part.split()) for part in printable(name).splitlines() or [""]]


@at_any_speed
@given(dags())
def test_each_edge_is_drawn_once(dag: Dag) -> None:
    names = {f"n{number}": node for number, node in enumerate(dag)}
    drawn = re.findall(r"^    (n\d+) --> (n\d+)$", to_mermaid(dag), re.MULTILINE)
    assert sorted((names[one], names[other]) for one, other in drawn) == sorted(
        (name, node) for node in dag for name in dag.upstream(node)
    )


@pytest.mark.parametrize("marks", [{"states": {"b": NodeState.READY}}, {"mapped": ["b"]}, {"branches": ["b"]}])
def test_marks_of_an_unknown_job_are_refused(marks: dict[str, list[str]]) -> None:
    with pytest.raises(UnknownJob, match="no job 'b'"):
        to_mermaid(Dag({"a": []}), **marks)
