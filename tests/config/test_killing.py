# SPDX-License-Identifier: Apache-2.0
"""``never_kill``, ``kill_tree`` and ``kill_budget``: from the file to the actions of a rule."""

from aegis.config.lint import lint
from aegis.policy.model import Actions
from tests.config.conftest import Etc


def test_kill_tree_of_global_is_the_default_of_rules_that_kill(etc: Etc) -> None:
    rules = """
        [[app]]
        exe = "a"
        actions = ["kill"]
        [[app]]
        exe = "b"
        actions = ["kill"]
        kill_tree = false
        [[app]]
        exe = "c"
        actions = ["block"]
        kill_tree = true
    """
    etc.main(rules, kill_tree="true", unconfigured_actions='["kill"]')
    policy = etc.load().policy
    tree = Actions(kill=True, kill_tree=True, agent_kills=True)
    assert [rule.actions for rule in policy.rules] == [
        tree,
        Actions(kill=True),
        Actions(block=True),
    ]
    assert policy.settings.unconfigured_actions == tree


def test_a_rule_that_may_meet_a_listed_program_leaves_the_kill_to_the_agent(etc: Etc) -> None:
    etc.main('[[app]]\nexe = "a"\n[[app]]\nexe = "b"', default_actions='["kill"]')
    etc.drop_in("z.toml", '[global]\nnever_kill = ["b"]\nkill_budget = 0')
    policy = etc.load().policy
    assert [rule.actions.agent_kills for rule in policy.rules] == [False, True]
    assert (policy.settings.never_kill, policy.settings.kill_budget) == (("b",), 0)


def test_a_symlink_in_never_kill_means_what_it_leads_to(etc: Etc) -> None:
    """The kernel never sees a link: a list that named one would protect nothing."""
    (etc.top / "real").touch()
    (etc.top / "link").symlink_to("real")
    etc.main(never_kill=f'["{etc.top}/link"]')
    assert etc.load().policy.settings.never_kill == (f"{etc.top}/real",)
    [warning] = etc.warnings()
    assert "global.never_kill" in warning and "symbolic link" in warning


def test_a_kill_that_never_kill_forbids_is_a_warning(etc: Etc) -> None:
    rules = '\n[[app]]\nexe = "a"\nactions = ["kill"]\n[[app]]\nexe = "b"\nactions = ["kill"]\n'
    etc.main(rules, never_kill='["b"]')
    found = [etc.bare(str(problem)) for problem in lint(etc.load())]
    assert [text for text in found if "never" in text or "blocks only" in text] == [
        'aegis.toml:11:1: app.actions: "kill" blocks only: aegis.toml:4 lists b'
    ]
