"""The commands that change or verify a store: promote, rollback, verify, gc."""

from dataclasses import replace

from command import Cifar
from places import flip_a_bit
from tiny_artifacts import build_of

from tasks.core.runtime.environment import current_user
from tasks.core.store.gc import Plan
from tasks.core.store.runs import recording_run
from tasks.core.store.verify import NEXT_RUN_REBUILDS, RUN_AGAIN

# promote and rollback


def test_promote_makes_a_run_current_and_prints_who_when_and_why(cifar: Cifar) -> None:
    current, previous = cifar.run("current").run, cifar.run("previous").run

    printed = cifar("promote", "previous", "--why", "fewer cats")

    entry = cifar.last_entry()
    time = entry["at"][:19].replace("T", " ")
    assert printed == f"current run: {previous} (promoted on {time} UTC by {current_user()}: fewer cats)\n"
    assert (entry["action"], entry["run"], entry["who"], entry["why"]) == (
        "promote",
        previous,
        current_user(),
        "fewer cats",
    )
    assert (cifar.run("current").run, cifar.run("previous").run) == (previous, current)
    assert cifar.place.json("current.json")["run"] == previous


def test_promote_has_a_default_reason(cifar: Cifar) -> None:
    cifar("promote", "previous")

    assert cifar.last_entry()["why"] == "requested by `cifar promote`"


def test_rollback_makes_the_previous_run_current_again(cifar: Cifar) -> None:
    current, previous = cifar.run("current").run, cifar.run("previous").run
    weights = cifar.place.read(f"{cifar.run('previous').artifacts['weights']}/cifar_net.pth")

    printed = cifar("rollback", "--why", "calls cats dogs")

    assert printed.startswith(f"current run: {previous} (rolled back to on ")
    assert printed.endswith(f" UTC by {current_user()}: calls cats dogs)\n")
    entry = cifar.last_entry()
    assert (entry["action"], entry["run"], entry["instead_of"]) == ("rollback", previous, current)
    assert (entry["who"], entry["why"]) == (current_user(), "calls cats dogs")
    assert cifar.place.read("cifar_net.pth") == weights
    assert [row["standing"] for row in cifar.json("history")] == ["rolled back", "current"]


def test_rollback_needs_a_reason_and_a_previous_run(cifar: Cifar) -> None:
    assert "--why" in cifar.refused("rollback")
    cifar("rollback", "--why", "once")
    assert cifar.refused("rollback", "--why", "twice").startswith(
        f"run previous: expected 2 or more promoted runs in {cifar.root}, got 1"
    )


# verify


def test_verify_of_an_intact_store_finds_no_problems(cifar: Cifar) -> None:
    assert cifar("verify") == "no problems found\n"
    assert cifar.json("verify") == []


def test_verify_lists_problems_and_exits_with_1(cifar: Cifar) -> None:
    ref = cifar.run("previous").artifacts["weights"]
    flip_a_bit(cifar.place, f"{ref}/cifar_net.pth")

    finding, total = cifar("verify", exit_code=1).splitlines()

    damage = f"{ref}: cifar_net.pth is damaged: its bytes are not those that were stored"
    assert finding == f"{damage}; {NEXT_RUN_REBUILDS}"
    assert total == "1 problem found"
    assert [(each["wrong"], each["known"]) for each in cifar.json("verify", exit_code=1)] == [(damage, False)]


def test_verify_exits_with_0_if_all_problems_are_known(cifar_on_tiny: Cifar) -> None:
    ref = cifar_on_tiny.run(cifar_on_tiny.json("history")[0]["run"]).artifacts["weights"]
    manifest = cifar_on_tiny.store.manifest(ref.name, ref.version)
    assert manifest
    flip_a_bit(cifar_on_tiny.place, f"{ref}/cifar_net.pth")
    cifar_on_tiny.store.get_or_create(replace(build_of({"cifar_net.pth": b"other"}), key=manifest.key))

    known, total = cifar_on_tiny("verify").splitlines()

    assert known.startswith("known: run ")
    assert known.endswith(f": its {ref} is not in the store, and a later attempt replaced it; {RUN_AGAIN}")
    assert total == "no other problems found"


def test_verify_lists_what_the_next_command_repairs(cifar_on_tiny: Cifar) -> None:
    flip_a_bit(cifar_on_tiny.place, "per_class.parquet")

    printed = [cifar_on_tiny("verify", exit_code=1) for _ in range(2)]
    cifar_on_tiny("history")

    assert printed[0] == printed[1]
    assert printed[0].startswith("at the root: per_class.parquet is damaged")
    assert cifar_on_tiny("verify") == "no problems found\n"


# gc


def test_gc_prints_what_it_would_remove_and_then_removes_it(cifar_on_tiny: Cifar) -> None:
    before = cifar_on_tiny.place.names()

    would = cifar_on_tiny("gc", "--keep", "1", "--dry-run").splitlines()
    plan = Plan.model_validate(cifar_on_tiny.json("gc", "--keep", "1", "--dry-run"))
    assert cifar_on_tiny.place.names() == before
    done = cifar_on_tiny("gc", "--keep", "1").splitlines()

    assert would[:-1] == done[:-1] == [f"{each.name}/{each.version}  {each.bytes:,} bytes" for each in plan.versions]
    total = f"4 versions, {plan.bytes:,} bytes, of 1 run; the artifacts of 2 runs are kept"
    assert (would[-1], done[-1]) == (f"would be removed: {total}", f"removed: {total}")
    assert len(cifar_on_tiny.place.names()) < len(before)
    assert cifar_on_tiny.json("gc", "--keep", "1")["bytes"] == 0


def test_gc_needs_a_number_of_runs_to_keep(cifar_on_tiny: Cifar) -> None:
    assert "--keep" in cifar_on_tiny.refused("gc")
    assert "--keep" in cifar_on_tiny.refused("gc", "--keep", "-1")


def test_gc_removes_nothing_while_a_run_is_in_progress(cifar_on_tiny: Cifar) -> None:
    with recording_run(cifar_on_tiny.store, {}, {}) as run:
        error = cifar_on_tiny.refused("gc", "--keep", "0", exit_code=1)
    assert error.startswith(f"gc: run {run.record.run} of {current_user()} is in progress; nothing was removed")


def test_every_command_names_a_collected_run(cifar_on_tiny: Cifar) -> None:
    run = cifar_on_tiny.json("gc", "--keep", "1")["runs"][0]

    assert "its artifacts may be gone" in cifar_on_tiny("show", run)
    for arguments in (("compare", run, "current"), ("path", "per_class", "--run", run)):
        assert f"run {run}: its artifacts were collected on " in cifar_on_tiny.refused(*arguments)
    assert f"run {run}: expected a completed run, got one whose artifacts were collected" in (
        cifar_on_tiny.refused("promote", run)
    )
