"""`Planned`: attributes of an iterator that its planner has."""

from __future__ import annotations

from typing import Generic, TypeVar, overload

__all__ = ["Planned"]

T = TypeVar("T")


class Planned(Generic[T]):
    """An attribute of Keras' iterators that is the planner's here; it is read and set as before.

    What a subclass sets before it calls ``Iterator.__init__`` is kept with the iterator, until there is a planner.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, iterator: None, owner: type) -> Planned[T]: ...

    @overload
    def __get__(self, iterator: object, owner: type) -> T: ...

    def __get__(self, iterator: object | None, owner: type) -> Planned[T] | T:
        if iterator is None:
            return self
        own = vars(iterator)
        if "_planner" not in own and self._name not in own:
            raise AttributeError(f"{owner.__name__} has no {self._name!r} before Iterator.__init__ is called")
        value: T = getattr(own["_planner"], self._name) if "_planner" in own else own[self._name]
        return value

    def __set__(self, iterator: object, value: T) -> None:
        own = vars(iterator)
        # Users set these on a living iterator, as with Keras; and a subclass may set one before there is a planner.
        if "_planner" in own:
            setattr(own["_planner"], self._name, value)
        else:
            own[self._name] = value
