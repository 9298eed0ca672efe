"""Who is asked for whom in a ping matrix, what is expected, and how the answers are shown."""

from __future__ import annotations

import json

import pytest

from pycni.lab.drawing import Box, Words, render_svg
from pycni.lab.errors import LabError
from pycni.lab.matrix import Matrix, Pair, Seen, names_of, pairs_of
from pycni.lab.matrix_view import cell_of, compact, draw_matrix, rows
from pycni.lab.picture import Picture, PictureContainer, PictureHost, PictureNetwork, Plug, Segment, Wire
from pycni.lab.pings import Echoes
from pycni.lab.reaching import address_of, chosen_pairs
from pycni.lab.scenario import Expectation


def container(name: str, **plugs: tuple[str, ...]) -> PictureContainer:
    return PictureContainer(name, tuple(Plug(net, f"eth{at}", each) for at, (net, each) in enumerate(plugs.items())))


def lab(*, isolated: bool = False) -> Picture:
    """Two hosts, a network that spans them and one that does not; on h2 a container on both."""
    return Picture(
        "x",
        (Segment("lan"),),
        hosts=(
            PictureHost(
                "h1",
                (Wire("lan", "eth0", ("192.0.2.1", "2001:db8::1")),),
                (container("a", blue=("10.1.0.1", "fd00::1")), container("b", local=("10.2.0.1",))),
            ),
            PictureHost(
                "h2",
                (Wire("lan", "eth0", ("192.0.2.2", "2001:db8::2")),),
                (container("a", blue=("10.1.0.2", "fd00::2")), container("b", local=("10.2.0.1",), blue=("10.1.0.3",))),
            ),
        ),
        networks=(PictureNetwork("blue", spans=True), PictureNetwork("local", isolated=isolated)),
    )


def expected(picture: Picture, **how: object) -> dict[tuple[str, str, str], str]:
    return {(each.source, each.target, each.address): each.expected for each in pairs_of(picture, **how)}  # type: ignore[arg-type]


def test_what_is_expected_follows_from_the_networks() -> None:
    """A network that spans hosts is expected over hosts and in both families; between networks anything may be."""
    pairs = expected(lab())
    assert pairs["h1/a", "h2/a", "10.1.0.2"] == pairs["h1/a", "h2/a", "fd00::2"] == "yes"
    assert pairs["h1/a", "h2/b", "10.1.0.3"] == "yes"
    assert pairs["h1/a", "h1/b", "10.2.0.1"] == "open"
    assert pairs["h1/b", "h2/a", "10.1.0.2"] == "open"


def test_a_bridge_is_asked_for_on_its_own_host_only() -> None:
    """The same address is on the bridges of both hosts: an answer would be another container's."""
    pairs = expected(lab())
    assert ("h1/b", "h2/b", "10.2.0.1") not in pairs
    assert ("h1/a", "h2/b", "10.2.0.1") not in pairs
    assert ("h2/a", "h2/b", "10.2.0.1") in pairs
    assert not any(source == target for source, target, _ in pairs)


def test_nothing_may_pass_into_or_out_of_an_isolated_network() -> None:
    """Either end is enough."""
    pairs = expected(lab(isolated=True))
    assert pairs["h1/a", "h1/b", "10.2.0.1"] == pairs["h1/b", "h1/a", "10.1.0.1"] == "no"
    assert pairs["h1/a", "h2/a", "10.1.0.2"] == "yes"


def test_one_family_and_missing_addresses() -> None:
    """`-4` asks for no IPv6 address; a container without any where one must be is expected, and not asked."""
    assert all(":" not in address for _, _, address in expected(lab(), families=(4,)))
    broken = Picture(
        "x",
        hosts=(PictureHost("h1", (), (container("a", blue=("10.1.0.1",)), container("b", blue=()))),),
        networks=(PictureNetwork("blue", spans=True),),
    )
    assert expected(broken)["h1/a", "h1/b", ""] == "yes"
    assert Seen(Pair("h1/a", "h1/b", "blue", ""), Echoes(0)).wrong


def seen(sent: int, *rtts: float, expected: str = "yes", address: str = "10.1.0.2") -> Seen:
    return Seen(Pair("h1/a", "h2/a", "blue", address, expected), Echoes(sent, rtts))


@pytest.mark.parametrize(
    ("cell", "state", "text"),
    [
        ([seen(3, 0.1, 0.2, 0.3)], "good", "0.20"),
        ([seen(2, 20.0, 30.0)], "good", "25"),
        ([seen(3, 0.1, 0.2)], "lossy", "-33%"),
        ([seen(1000, *[0.1] * 999)], "lossy", "-1%"),
        ([seen(3)], "bad", "FAIL"),
        ([seen(3, 0.1, 0.1, 0.1), seen(3, address="fd00::2")], "part", "no v6"),
        ([seen(0, address=""), seen(3, 0.1, 0.1, 0.1)], "part", "no net"),
        ([seen(1, 0.1, expected="no")], "leak", "leak"),
        ([seen(1, expected="no")], "none", "·"),
        ([seen(1, 0.1, expected="open")], "open", "(0.10)"),
        ([seen(1, expected="open")], "none", "·"),
        ([], "none", "·"),
    ],
)
def test_cells(cell: list[Seen], state: str, text: str) -> None:
    """What two containers come to, in a word."""
    assert (cell_of(cell).state, cell_of(cell).text) == (state, text)


def matrix(*several: Seen) -> Matrix:
    return Matrix(names_of(lab()), several)


def test_only_what_is_not_as_expected_is_wrong() -> None:
    """Silence between networks is none; loss, silence on a network and an answer over a wall are."""
    good = [seen(3, 0.1, 0.1, 0.1), seen(1, expected="no"), seen(1, expected="open"), seen(1, 0.1, expected="open")]
    bad = [seen(3, 0.1, 0.1), seen(3), seen(1, 0.1, expected="no")]
    assert matrix(*good, *bad).wrong == tuple(bad)


def test_table_and_signs() -> None:
    """Sources below each other, targets beside each other; the compact form has a column for each container."""
    head, table = rows(matrix(seen(3, 0.1, 0.1, 0.1)))
    assert head == ["FROM \\ TO", "h1/a", "h1/b", "h2/a", "h2/b"]
    assert table[0] == ["h1/a", "—", "·", "0.10", "·"]
    assert compact(matrix(seen(3)))[0:2] == ["       1234", "1 h1/a -·X·"]


def test_json_has_every_pair_and_a_summary() -> None:
    """Times in ms, or null where no echo came back."""
    told = json.loads(json.dumps(matrix(seen(3, 0.1, 0.3, 0.2), seen(3)).as_json()))
    assert told["summary"] == {"containers": 4, "pairs": 2, "expected": 2, "wrong": 1}
    first, second = told["pairs"]
    assert first["rtt_ms"] == {"min": 0.1, "median": 0.2, "max": 0.3} and not first["wrong"]
    assert second["rtt_ms"] is None and second["lost"] == 3 and second["wrong"]


def test_picture_has_a_cell_for_each_pair() -> None:
    """Words fit into their cells; what a cell is, is told to the pointer, too."""
    several = [seen(3, 0.1, 0.1, 0.1), seen(3, address="fd00::2")]
    drawing = draw_matrix(matrix(*several), "x")
    cells = [shape for shape in drawing.shapes if isinstance(shape, Box) and shape.width > 20]
    assert len(cells) == 16
    whole = Box(0, 0, drawing.width, drawing.height)
    for words in (shape for shape in drawing.shapes if isinstance(shape, Words)):
        assert whole.holds(words.area), words.text
        assert all(cell.holds(words.area) or not cell.meets(words.area) for cell in cells), words.text
    assert "10.1.0.2: 3 of 3 answers" in render_svg(drawing)


# -- what a claim speaks of --------------------------------------------------------------------------------------------


def chosen(**claim: object) -> set[tuple[str, str, str]]:
    made = Expectation("reach", 1, **claim)  # type: ignore[arg-type]
    return {(each.source, each.target, each.address) for each in chosen_pairs(lab(), made)}


def test_reach_all_means_common_networks() -> None:
    """What is only possible is not demanded."""
    assert ("h1/a", "h2/a", "fd00::2") in chosen()
    assert ("h1/a", "h1/b", "10.2.0.1") not in chosen()


def test_patterns_of_containers_and_hosts() -> None:
    """`h1/*` are containers, `h*` hosts; named pairs without a common network are asked all the same."""
    assert chosen(source="h1/*", target="h2/a", family=4) == {("h1/a", "h2/a", "10.1.0.2")}
    assert chosen(source="h1/a", target="h1/b") == {("h1/a", "h1/b", "10.2.0.1")}
    assert chosen(source="h1", target="h*", family=6) == {("h1", "h2", "2001:db8::2")}
    assert ("h1", "h2/b", "10.1.0.3") in chosen(source="h1", target="*/*", network="blue")


def test_a_claim_about_nothing_is_an_error() -> None:
    """It would hold for ever."""
    with pytest.raises(LabError, match="no such pair"):
        chosen(source="h1/b", target="h2/b", network="local")
    with pytest.raises(LabError, match="no such pair"):
        chosen(source="h7/*")


def test_the_address_by_which_a_name_is_found() -> None:
    """On the network that both have; of the family that is asked for; an address is one already."""
    picture = lab()
    assert address_of(picture, "h2/b", "h1/a") == "10.1.0.3"
    assert address_of(picture, "h2/b", "h2") == "10.2.0.1"
    assert address_of(picture, "h2", "h1", 6) == "2001:db8::2"
    assert address_of(picture, "2001:db8::9", "h1") == "2001:db8::9"
    with pytest.raises(LabError, match="h1/b has no IPv6 address"):
        address_of(picture, "h1/b", "h1", 6)
    for name in ("h1/zz", "h1/zz.1"):  # a container's name may have a dot
        with pytest.raises(LabError, match=f"no container {name}$"):
            address_of(picture, name, "h1")
