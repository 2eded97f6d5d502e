"""Patches come off again, as long as they are still ours."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_retrieval_guard.observe.patches import Patches


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
    thing.greet = own = lambda name: f"hi {name}"
    patches.put(thing, "greet", louder)
    assert thing.greet("Ada") == "HI ADA"
    patches.undo()
    assert thing.greet is own


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
    thing.greet = own = lambda name: name
    patches.undo()
    assert thing.greet is own


@pytest.mark.parametrize("owner", [Base(), Child], ids=["object", "class"])
def test_what_someone_else_has_put_on_top_stays(owner: Any, patches: Patches) -> None:
    patches.put(owner, "greet", louder)
    foreign = owner.greet = lambda *args: "foreign"
    try:
        patches.undo()
        assert vars(owner)["greet"] is foreign
    finally:
        del owner.greet


def test_what_someone_else_has_taken_off_stays_off(patches: Patches) -> None:
    thing = Base()
    patches.put(thing, "greet", louder)
    del thing.greet
    patches.undo()
    assert vars(thing) == {}


def test_two_owners_do_not_see_each_other() -> None:
    thing, one, other = Base(), Patches(), Patches()
    one.put(thing, "greet", louder)
    other.put(thing, "greet", lambda original: lambda name: f"<{original(name)}>")
    other.undo()
    assert thing.greet("Ada") == "HELLO ADA"
    one.undo()
    assert vars(thing) == {}


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
