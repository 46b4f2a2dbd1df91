"""How states, doubts and reasons read: what makes a table less than the whole truth is never left out."""

from __future__ import annotations

from sdlb.cli import out
from sdlb.cli.explain import lines
from sdlb.cli.routes import rows as route_rows
from sdlb.cli.status import opening_lines, rows, site_lines, warnings
from sdlb.cli.tree import draw
from sdlb.sdk.types import (
    Candidate,
    Child,
    Claim,
    Disagreement,
    Ejected,
    Explanation,
    Former,
    GateProgress,
    Instance,
    Opening,
    OtherRoute,
    Parent,
    RefusedClaim,
    Route,
    Service,
    Services,
    Site,
    Sites,
    TargetChoice,
    Tree,
    Version,
    VersionChoice,
)

WHY = "2.4.2 still has 3 instances on host-1, host-3"


def words(pieces: list[out.Piece]) -> str:
    return "".join(out.plain(piece) for piece in pieces).rstrip()


def test_a_waiting_version_shows_its_reason_and_a_differing_route_gets_its_own_line() -> None:
    held = Claim(route="a.example/x", state="refused", reason="held by other", decided_by="edge-1")
    usual = Claim(route="a.example/y", state="waiting", reason=WHY)
    waiting = Version(
        version="2.5.1", state="waiting", reason=WHY, instances=1, hosts=("host-2",), claims=(usual, held)
    )
    shown = [[out.plain(cell) for cell in row] for row in rows(Service(name="catalog", versions=(waiting,)))]
    assert shown == [
        ["catalog", "2.5.1", "1", "0", "0%", "host-2", f"waiting: {WHY}"],
        ["", "", "", "", "", "a.example/x", "refused: held by other (decided by edge-1)"],
    ]


def test_what_is_wrong_with_a_site_is_shown_once() -> None:
    kept = Site(
        name="a.example", state="kept", reason="the files cannot be read", warnings=("it expires", "it is weak")
    )
    assert list(site_lines(Sites(sites=(kept, Site(name="b.example", state="serving"))))) == [
        ("site a.example: the files cannot be read; it keeps its previous certificate", "red"),
        ("site a.example: it expires", "yellow"),
        ("site a.example: it is weak", "yellow"),
    ]


def test_what_is_active_and_can_take_nothing_is_not_green() -> None:
    claim = Claim(route="a.example/x", state="active")
    why = "no instance is ready on host-1 (web-a: no answer within 1 s)"
    down = Version(
        version="1.0.0", state="active", reason_code="nothing-ready", reason=why, instances=1, claims=(claim,)
    )
    ((*_, cell),) = rows(Service(name="web", versions=(down,)))
    assert cell == (f"active, but {why}", "red")
    older = Version(version="1.0.0", state="active", instances=1, claims=(claim,))
    ((*_, cell),) = rows(Service(name="web", versions=(older,)))
    assert cell == ("active, but no instance is ready", "red")


def test_gates_and_the_cut_over_are_shown_below_the_table() -> None:
    gates = (
        GateProgress(name="sign-off", state="open", age_s=130.0, by=("ann", "bob"), kind="approval"),
        GateProgress(name="night", state="waiting", age_s=8.4, reason="the window is sun 02:00 to 04:00 (UTC)"),
        GateProgress(name="migrate", at="gap", state="refused", age_s=7300, attempts=3, reason="exit code 1"),
    )
    versions = {"2.5.1": Candidate(gates=gates), "3.0.0": Candidate(promoted="ann", no_gates="an emergency")}
    opening = Opening(conductor="edge-1", phase="gap", to="2.5.1", since_s=4.0, versions=versions)
    assert [words(line) for line in opening_lines(Service(name="catalog", opening=opening))] == [
        "catalog  cut-over to 2.5.1  gap: requests are parked, no version is active, 4 s (edge-1)",
        "catalog  2.5.1  gate sign-off  open by ann, bob 2 min",
        "catalog  2.5.1  gate night  waiting 8 s: the window is sun 02:00 to 04:00 (UTC)",
        "catalog  2.5.1  gate migrate in the gap  refused 2 h, attempt 3: exit code 1",
        "catalog  3.0.0  promoted by ann, without gates: an emergency",
    ]
    shown = opening_lines(Service(name="catalog", opening=opening), gates=False)
    assert [words(line).partition(" (")[0] for line in shown] == [
        "catalog  cut-over to 2.5.1  gap: requests are parked, no version is active, 4 s",
        "catalog  3.0.0  promoted by ann, without gates: an emergency",
    ]
    reverted = Opening(conductor="edge-1", phase="reverted", to="2.5.1", since_s=200_000.0, detail="edge-2 was lost")
    (line,) = opening_lines(Service(name="catalog", opening=reverted))
    assert line[1] == ("reverted: edge-2 was lost", "red")
    assert words(line).endswith(", 2 d (edge-1)")
    assert list(opening_lines(Service(name="catalog"))) == []


def test_unhealthy_instances_and_ejected_endpoints_are_shown() -> None:
    sick = Instance(id="web-a", service="web", version="1.0.0", state="unhealthy", health_detail="no answer within 1 s")
    tree = Tree(
        node="host-1",
        ready=True,
        children=(Child(name="host-9", state="connected"),),
        instances=(sick,),
        ejected=(Ejected(target="n:host-9", reason="3 connections refused"),),
    )
    assert [out.plain(line) for line in warnings(Services(), tree)] == [
        "web-a (web-1.0.0) on host-1 is unhealthy: no answer within 1 s",
        "host-1 has ejected the node host-9: 3 connections refused",
    ]
    assert "ejected: 3 connections refused" in words(list(draw(tree))[1])


def test_many_instances_and_children_are_folded() -> None:
    sick = Instance(id="i-x", service="web", version="1.0.0", state="unhealthy", reason="no answer")
    many = tuple(Instance(id=f"i-{n}", service="web", version="1.0.0", state="active") for n in range(100))
    children = tuple(Child(name=f"host-{n}", state="connected") for n in range(50))
    tree = Tree(
        node="h", ready=True, instances=(*many, sick), children=(*children, Child(name="lost", state="suspect"))
    )
    shown = [words(line)[3:] for line in draw(tree)][1:]
    assert shown == [
        "lost  suspect  last heard 0 s ago  no services",
        "50 children  connected  (--all lists them)",
        "web-1.0.0  100 instances  active  (--all lists them)",
        "web-1.0.0  unhealthy: no answer    i-x",
    ]
    assert len(list(draw(tree, every=True))) == 1 + 51 + 101


def test_doubts_are_shown_as_warnings() -> None:
    services = Services(
        unreachable=("edge-2",), disagree=(Disagreement(service="catalog", text="edge-1 has 1, edge-2 2"),)
    )
    calm = Tree(node="host-1", ready=True)
    assert [out.plain(line) for line in warnings(services, calm)] == [
        "roots disagree about catalog: edge-1 has 1, edge-2 2",
        "not reached: edge-2; the table shows what the others report",
    ]
    assert list(warnings(Services(), calm)) == []
    guarded = Tree(node="host-1", ready=True, guarded=True, cut_off=True)
    told = [out.plain(line) for line in warnings(Services(), guarded)]
    assert told[0].startswith("host-1 is guarded")
    assert told[1].startswith("host-1 is cut off")
    assert "the engine is not attached" in out.plain(
        next(warnings(Services(), Tree(node="h", detail="the engine is not attached")))
    )


def test_the_tree_is_drawn_around_the_node() -> None:
    tree = Tree(
        node="rack-1",
        ready=True,
        roots=("edge-1", "far"),
        parents=(
            Parent(name="edge-1", address="10.0.0.1:7700", state="connected", detail="connected"),
            Parent(address="10.0.0.2:7700", state="lost", detail="connection refused", silent_s=12.3),
        ),
        children=(Child(name="host-1", state="suspect", silent_s=11.0, instances=1, capacity=9, services=("a-1",)),),
        instances=(
            Instance(
                id="x",
                service="b",
                version="2",
                state="waiting",
                reason=WHY,
                endpoint="unix:/b",
                former=(Former(version="1", endpoint="unix:/a", state="draining"),),
            ),
        ),
    )
    assert [words(line) for line in draw(tree)] == [
        "above: far (root)",
        "edge-1  root  10.0.0.1:7700  connected",
        "10.0.0.2:7700  parent  lost: connection refused  last heard 12 s ago",
        "└─ rack-1  this node" if out.draws() else "`- rack-1  this node",
        ("   ├─ " if out.draws() else "   |- ") + "host-1  suspect  last heard 11 s ago  a-1  1 instance, capacity 9",
        ("   └─ " if out.draws() else "   `- ") + f"b-2  waiting: {WHY}  unix:/b  x  before: 1 on unix:/a is draining",
    ]


def test_a_refused_claim_is_shown_under_the_route_that_it_wanted() -> None:
    refused = RefusedClaim(service="thief", version="1", reason="a.example/* is held by web", decided_by="edge-1")
    route = Route(route="a.example/*", service="web", versions=("1.0", "1.1"), state="active", refused=(refused,))
    shown = [[out.plain(cell) for cell in row] for row in route_rows(route)]
    assert shown[0] == ["a.example/*", "web", "1.0, 1.1", "0", "", "", "active"]
    assert shown[1] == ["", "thief", "1", "", "", "", "refused: a.example/* is held by web (decided by edge-1)"]


def test_an_explanation_shows_the_rejected_alternatives_with_reasons() -> None:
    told = Explanation(
        node="edge-1",
        url="http://a.example/x",
        route="a.example/*",
        service="web",
        rule="exact host, prefix /",
        versions=(
            VersionChoice(version="1.1", chosen=True, share=100.0, why="priority higher"),
            VersionChoice(version="2.0", why=f"waiting: {WHY}"),
        ),
        targets=(
            TargetChoice(version="1.1", name="n:rack-1", kind="node", address="10.0.0.1:1", chosen=True),
            TargetChoice(version="1.1", name="i:n:odd", kind="instance", address="unix:/x", why="is draining"),
        ),
        others=(OtherRoute(route="*/*", service="rest", why="less specific than a.example/*"),),
    )
    assert [f"{label}: {words(list(pieces))}" for label, *pieces in lines(told)] == [
        "request: http://a.example/x  entering at edge-1",
        "route: a.example/*  (exact host, prefix /)",
        "service: web",
        "version: 1.1  100%  (priority higher)",
        "goes to: node rack-1  10.0.0.1:1  (1.1)",
        f"not: web 2.0: waiting: {WHY}",
        "not: instance n:odd (1.1): is draining",
        "not: */* of rest: less specific than a.example/*",
    ]
    nothing = Explanation(node="edge-1", url="http://b/", status=404, reason="no claim matches")
    assert [words(list(pieces)) for label, *pieces in lines(nothing) if label == "answer"] == [
        "404 from edge-1: no claim matches"
    ]
