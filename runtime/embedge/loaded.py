"""LoadedModel: one model file, loaded: its lifetime, its identity, and how it is pickled."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from embedge.errors import resource_errors
from embedge.ort.loading import ModelPath, absolute, load, read_model
from embedge.ort.threads import check_threads
from embedge.pipeline import Pipeline
from embedge.similarity import check_dim
from embedge.text.overflow import TruncationCounter
from embedge.text.prompts import first_prompt, prompt_text

if TYPE_CHECKING:
    from embedge.ort.providers import Providers


class LoadedModel:
    """The part of an Encoder that does not depend on texts; `embedge.Encoder` has the arguments."""

    def __init__(
        self,
        model: ModelPath = None,
        *,
        providers: "Providers" = "auto",
        threads: int | None = None,
        dim: int | None = None,
    ) -> None:
        path = absolute(model)
        self._options = {"model": path, "providers": providers, "threads": threads, "dim": dim}
        with resource_errors():
            file = read_model(path)
            self._settings = file.settings
            self._dim = check_dim(dim, file.settings.dim, file.settings.default_dim)
            tokenizer, session = load(file, providers, check_threads(threads))
        self._concurrency = session.concurrency
        self._pipeline = Pipeline(file.settings, tokenizer, session)
        self._info = {**file.describe(), **session.describe()}
        self._fingerprint = file.fingerprint
        self._truncated = TruncationCounter(file.settings.max_tokens)
        self._own = frozenset(self.__dict__) | {"_own"}

    def close(self) -> None:
        """Release the model and give its memory back to the system.

        Calls in other threads end with ClosedError, within one micro-batch each, and so does every
        later one. An Encoder that is only deleted may leave part of its memory with the process.
        """
        self._pipeline.close()

    def __enter__(self) -> Self:
        self._pipeline.check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return self._dim

    @property
    def max_tokens(self) -> int:
        """Longest text the model takes, in tokens, special tokens included."""
        return self._settings.max_tokens

    @property
    def fingerprint(self) -> str:
        """Identity of everything that decides a vector, 64 hexadecimal digits.

        Store it with an index, so that vectors of different models are never mixed.
        """
        return self._fingerprint

    @property
    def truncated(self) -> int:
        """How many texts this Encoder has truncated to ``max_tokens`` so far."""
        return self._truncated.count

    @property
    def info(self) -> dict[str, Any]:
        """Everything in the file but weights and vectors, ready for JSON."""
        return dict(self._info)

    def __reduce__(self) -> tuple[Callable[..., "LoadedModel"], tuple[Any, ...], dict[str, Any]]:
        added = {name: value for name, value in vars(self).items() if name not in self._own}
        return _load_again, (type(self), self._options), added

    def __repr__(self) -> str:
        name = self._settings.name
        return f"Encoder({name!r}, dim={self._dim}, fingerprint={self.fingerprint[:12]!r})"

    def _prompt(self, name: str | None) -> str:
        return prompt_text(self._settings.prompts, self._settings.default_prompt, name)

    def _front(self, names: Sequence[str]) -> str:
        return self._prompt(first_prompt(self._settings.prompts, names))


def _load_again(cls: type[LoadedModel], options: dict[str, Any]) -> LoadedModel:
    model = cls.__new__(cls)  # the class's own __init__ may take other arguments
    LoadedModel.__init__(model, **options)
    return model
