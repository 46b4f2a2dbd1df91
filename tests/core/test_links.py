"""The two ends of a link, interrupted anywhere: no report is lost, and none of an earlier claim counts."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdlb.core.digest import claims_digest
from sdlb.core.downlink import Downlink
from sdlb.core.messages import (
    ACTIVE,
    Beat,
    Cause,
    Claim,
    ClaimKey,
    DownState,
    Gone,
    Hello,
    Path,
    UpState,
    Verdict,
    Welcome,
)
from sdlb.core.uplink import Phase, Uplink

KEYS = [ClaimKey("catalog", version, "example.com/*") for version in ("1.0.0", "1.0.1", "2.0.0")]


class Machine(RuleBasedStateMachine):
    """`stamp` numbers claims: one that was withdrawn and made again is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.up = Uplink("parent", 0.0, 10.0)
        self.down = Downlink("child", "id", 1, "10.0.0.1:80", 0.0)
        self.wish: dict[ClaimKey, Claim] = {}
        self.held: dict[ClaimKey, Claim] = {}  # by the parent
        self.to_parent: list[UpState | Beat] = []
        self.to_child: list[DownState | Beat] = []
        self.stamp = 0
        self.linked = False
        self._connect()

    # ------------------------------------------------------------------ the link

    def _connect(self) -> None:
        self.to_parent, self.to_child, self.linked = [], [], True
        claims, verdicts = self.up.greet({})
        hello = Hello("child", "id", 1, "10.0.0.1:80", claims, verdicts_digest=verdicts)
        digest = claims_digest(self.held.values())
        self.kept = self.down.linked(1, hello, digest, 0.0)
        welcome = Welcome("parent", "p", 1, Path(("parent",)), digest, verdicts_kept=self.kept)
        if self.up.welcome(welcome, 0.0):
            self.up.go_on()
        else:
            self.up.start_over()
        self._tell_child(list(self.held))
        self._tell_parent()

    def _break(self) -> None:
        self.linked = False
        self.to_parent, self.to_child = [], []
        self.up.closed(0.0, Random(1), "broken")

    @precondition(lambda self: self.linked)
    @rule()
    def breaks(self) -> None:
        self._break()

    @precondition(lambda self: not self.linked)
    @rule()
    def comes_back(self) -> None:
        self._connect()

    # ------------------------------------------------------------------ the child

    @rule(key=st.sampled_from(KEYS), capacity=st.integers(0, 3) | st.none())
    def changes(self, key: ClaimKey, capacity: int | None) -> None:
        if capacity is None:
            self.wish.pop(key, None)
            self.up.verdicts.pop(key, None)  # as `Parents.forget` does: it was about a claim of the past
        else:
            if key not in self.wish:
                self.stamp += 1
                unheard = None if self.linked else self.up.sent.get(key)  # the parent never heard of the withdrawal
                self.wish[key] = Claim(key, stamp=unheard.stamp if unheard is not None else self.stamp)
            self.wish[key] = Claim(key, capacity, stamp=self.wish[key].stamp)
        self._tell_parent()

    def _tell_parent(self) -> None:
        if not self.linked:
            return
        claims = [claim for key, claim in self.wish.items() if self.up.sent.get(key) != claim]
        gone = [Gone(key, Cause.STOPPED) for key in self.up.sent if key not in self.wish]
        message = self.up.state(claims, gone, [], ())
        if message is not None:
            self.to_parent.append(message)

    @precondition(lambda self: self.to_child)
    @rule()
    def child_hears(self) -> None:
        message = self.to_child.pop(0)
        if isinstance(message, Beat):
            if self.up.behind(message):
                self._break()
            return
        if not self.up.received(message.seq):
            self._break()
            return
        self.up.decide(message.verdicts, message.received)

    # ------------------------------------------------------------------ the parent

    @precondition(lambda self: self.to_parent)
    @rule()
    def parent_hears(self) -> None:
        message = self.to_parent.pop(0)
        if isinstance(message, Beat):
            if self.down.behind(message):
                self._break()
            return
        if not self.down.received(message.seq):
            self._break()
            return
        self.down.claims_due = False
        before = dict(self.held)
        if message.full:
            self.held = {}
        self.held.update((claim.key, claim) for claim in message.claims)
        for key, _ in message.withdrawn:
            self.held.pop(key, None)
        for key in before:
            if key not in self.held:
                self.down.sent.pop(key, None)
        self._tell_child([claim.key for claim in message.claims])

    def _tell_child(self, keys: list[ClaimKey]) -> None:
        verdicts = [Verdict(key, ACTIVE, generation=self.held[key].stamp) for key in keys if key in self.held]
        verdicts = [v for v in verdicts if not self.down.claims_due and self.down.sent.get(v.key) != v]
        message = self.down.state(verdicts, [], [], Path(("parent",)))
        if message is not None:
            self.to_child.append(message)

    # ------------------------------------------------------------------ loss and beats

    @rule(up=st.booleans())
    def a_message_is_lost(self, up: bool) -> None:
        queue = self.to_parent if up else self.to_child
        if queue:
            queue.pop(0)

    @precondition(lambda self: self.linked)
    @rule()
    def both_beat(self) -> None:
        self.to_parent.append(self.up.beat())
        self.to_child.append(self.down.beat(True))

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def a_verdict_is_about_the_claim_that_is_made(self) -> None:
        for key, verdict in self.up.verdicts.items():
            assert key not in self.wish or not self.linked or verdict.generation == self.wish[key].stamp

    def teardown(self) -> None:
        for _ in range(6):
            if not self.linked:
                self._connect()
            self.both_beat()
            while self.to_parent or self.to_child:
                if self.to_parent:
                    self.parent_hears()
                if self.to_child:
                    self.child_hears()
        assert self.up.phase is Phase.UP
        assert self.held == self.wish
        assert {key: verdict.generation for key, verdict in self.up.verdicts.items()} == {
            key: claim.stamp for key, claim in self.wish.items()
        }


TestLinks = Machine.TestCase
TestLinks.settings = settings(stateful_step_count=40)


def test_equal_digests_save_the_full_state() -> None:
    machine = Machine()
    machine.changes(KEYS[0], 3)
    while machine.to_parent:
        machine.parent_hears()
    machine.breaks()
    machine.comes_back()
    assert [message.full for message in machine.to_parent if isinstance(message, UpState)] == [False]
    assert machine.held == machine.wish


def test_a_parent_has_its_say_until_its_lease_is_over() -> None:
    uplink = Uplink("parent", 100.0, 10.0)
    assert uplink.in_touch(109.9), "one that was never heard counts as in touch at first"
    assert not uplink.in_touch(110.0)
    uplink.heard(200.0)
    uplink.closed(201.0, Random(1), "broken")
    assert uplink.in_touch(209.9), "a link that breaks changes nothing"
    assert not uplink.in_touch(210.0)


def test_a_node_that_cannot_reach_its_parent_backs_off_up_to_a_limit() -> None:
    uplink = Uplink("parent", 0.0, 10.0)
    pauses: list[float] = []
    for _ in range(12):
        uplink.closed(0.0, Random(7), "refused")
        pauses.append(uplink.dial_at)
    assert pauses[0] <= 0.1
    assert pauses == sorted(pauses)
    assert 2.5 <= pauses[-1] <= 5.0
