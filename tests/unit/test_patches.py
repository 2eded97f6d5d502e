"""Patches come off again, as long as they are still ours."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_retrieval_guard.watch.patches import Patches


class Base:
    def greet(self, name: str) -> str:
        """Greets."""
        return f"hello {name}"


class Child(Base):
    pass


def louder(original: Callable[..., str]) -> Callable[..., str]:
    def greet(*args: Any) -> str:
        return original(*args).upper()

    return greet


@pytest.fixture
def patches() -> Patches:
    return Patches()


def test_a_method_of_an_object_is_replaced_and_restored(patches: Patches) -> None:
    one, other = Base(), Base()
    patches.put(one, "greet", louder)
    assert one.greet("Ada") == "HELLO ADA"
    assert other.greet("Ada") == "hello Ada"
    patches.undo()
    assert one.greet("Ada") == "hello Ada"
    assert vars(one) == {}


def test_what_stood_on_the_object_before_comes_back(patches: Patches) -> None:
    thing = Base()
    thing.greet = on_object = lambda name: f"hi {name}"
    patches.put(thing, "greet", louder)
    assert thing.greet("Ada") == "HI ADA"
    patches.undo()
    assert thing.greet is on_object


@pytest.mark.parametrize("owner", [Base, Child], ids=["own", "inherited"])
def test_a_method_of_a_class_is_replaced_and_restored(patches: Patches, owner: type) -> None:
    before = dict(vars(owner))
    patches.put(owner, "greet", louder)
    assert Child().greet("Ada") == "HELLO ADA"
    patches.undo()
    assert dict(vars(owner)) == before
    assert Child().greet("Ada") == "hello Ada"


def test_patches_on_patches_come_off_in_reverse(patches: Patches) -> None:
    thing = Base()
    patches.put(thing, "greet", louder)
    patches.put(thing, "greet", lambda original: lambda name: f"<{original(name)}>")
    assert thing.greet("Ada") == "<HELLO ADA>"
    patches.undo()
    assert vars(thing) == {}


def test_undo_may_be_called_twice(patches: Patches) -> None:
    thing = Base()
    patches.put(thing, "greet", louder)
    patches.undo()
    thing.greet = on_object = lambda name: name
    patches.undo()
    assert thing.greet is on_object


@pytest.mark.parametrize("owner", [Base(), Child], ids=["object", "class"])
def test_what_someone_else_has_put_on_top_stays(owner: Any, patches: Patches) -> None:
    patches.put(owner, "greet", louder)
    foreign = owner.greet = lambda *args: "foreign"
    try:
        patches.undo()
        assert vars(owner)["greet"] is foreign
    finally:
        del owner.greet


def laid_over(owner: Any, name: str) -> Callable[[], None]:
    """Somebody else patches the attribute; returns what takes that off in the usual way."""
    before = vars(owner)[name]
    original = getattr(owner, name)

    def foreign(*args: Any) -> str:
        return f"<{original(*args)}>"

    setattr(owner, name, foreign)
    return lambda: setattr(owner, name, before)


@pytest.mark.parametrize("owner", [Base(), Child], ids=["object", "class"])
def test_brought_back_by_someone_elses_patch_it_does_nothing_and_goes(owner: Any, patches: Patches) -> None:
    def greet() -> str:
        return owner().greet("Ada") if isinstance(owner, type) else owner.greet("Ada")

    before = dict(vars(owner))
    patches.put(owner, "greet", louder)
    take_off = laid_over(owner, "greet")
    assert greet() == "<HELLO ADA>"
    patches.undo()
    assert greet() == "<hello Ada>"
    take_off()
    assert greet() == "hello Ada"
    assert dict(vars(owner)) == before


def test_brought_back_it_is_not_patched_once_more(patches: Patches) -> None:
    thing = Base()
    patches.put(thing, "greet", louder)
    take_off = laid_over(thing, "greet")
    patches.undo()
    take_off()
    patches.put(thing, "greet", louder)
    patches.undo()
    assert vars(thing) == {}


@pytest.mark.parametrize("owner", [Base(), Child], ids=["object", "class"])
def test_what_it_called_is_let_go_although_someone_else_lies_over_it(owner: Any, patches: Patches) -> None:
    class Watcher:
        def greet(self, *_: Any) -> str:
            return "watched"

    watcher = Watcher()
    watched = weakref.ref(watcher)
    patches.put(owner, "greet", lambda _, watcher=watcher: watcher.greet)
    del watcher
    laid_over(owner, "greet")
    try:
        assert watched() is not None
        patches.undo()
        gc.collect()
        assert watched() is None
    finally:
        del owner.greet


def test_it_keeps_no_owner_alive(patches: Patches) -> None:
    thing = Base()
    gone = weakref.ref(thing)
    patches.put(thing, "greet", louder)
    del thing
    gc.collect()
    assert gone() is None
    patches.undo()


def test_what_someone_else_has_taken_off_stays_off(patches: Patches) -> None:
    thing = Base()
    patches.put(thing, "greet", louder)
    del thing.greet
    patches.undo()
    assert vars(thing) == {}


@pytest.mark.parametrize("owner", [Base(), Child], ids=["object", "class"])
@pytest.mark.parametrize("first", [0, 1], ids=["the upper one first", "the lower one first"])
def test_two_owners_do_not_see_each_other(owner: Any, first: int) -> None:
    def greet() -> str:
        return owner().greet("Ada") if isinstance(owner, type) else owner.greet("Ada")

    before = dict(vars(owner))
    upper, lower = Patches(), Patches()
    lower.put(owner, "greet", louder)
    upper.put(owner, "greet", lambda original: lambda *args: f"<{original(*args)}>")
    assert greet() == "<HELLO ADA>"
    (lower if first else upper).undo()
    assert greet() == ("<hello Ada>" if first else "HELLO ADA")
    (upper if first else lower).undo()
    assert dict(vars(owner)) == before


def test_a_module_is_patched_past_its_own_setattr(patches: Patches) -> None:
    module = torch.nn.Linear(1, 1)
    before = set(vars(module))
    patches.put(module, "forward", lambda original: lambda x: original(x) * 0)
    assert module(torch.ones(1)).item() == 0
    patches.undo()
    assert set(vars(module)) == before


def test_it_keeps_name_and_documentation(patches: Patches) -> None:
    thing = Base()
    patches.put(thing, "greet", louder)
    assert (thing.greet.__name__, thing.greet.__doc__) == ("greet", "Greets.")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_gets_the_plain_method(patches: Patches, duplicate: Callable[[Any], Any]) -> None:
    thing = Base()
    thing.name = "Ada"
    patches.put(thing, "greet", louder)
    twin = duplicate(thing)
    assert twin.greet("Ada") == "hello Ada"
    assert twin.greet.__self__ is twin
