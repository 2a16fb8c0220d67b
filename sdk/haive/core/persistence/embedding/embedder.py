"""What turns texts into vectors, and what their cosines mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence.embedding.calibration import Calibration


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors.

    The same text gives the same vector, whatever else is in the call. Vectors of different names
    are never compared.
    """

    @property
    def name(self) -> str:
        """What made a vector, recorded beside it: it changes whenever the vectors do."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1.

        A text without any content has a vector too, always the same one.

        Raises:
            ModelError: There are no vectors; nothing is answered in part.
        """

    async def calibration(self) -> Calibration:
        """What the cosines of these vectors mean; the same one at each call.

        Raises:
            ModelError: It could not be measured.
        """


@runtime_checkable
class QueryEmbedder(Embedder, Protocol):
    """An embedder whose model reads a question otherwise than a text that may answer it."""

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a question: shape (dimensions,), of length 1.

        Raises:
            ModelError: There is none.
        """
