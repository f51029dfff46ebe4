"""Linear regression on the columns of the additive model: likelihoods, and posterior means.

The covariance (2) of E outcomes y is that of a regression on the n columns X of
`agents.additive_columns`. Their coefficients have the prior variances v times sigma: a (1 - b) for
those of G, a b for the products of G and Phi, 1 for the constant, c for Phi; the noise has v times
nu = 1 - a - c. With a Cholesky factor R^T R = X^T X + diag(nu / sigma),

    log det C = E log v + (E - n) log nu + sum log sigma + 2 log det R                   (6)
    y^T C^-1 y = (y^T y - u^T u) / (v nu),   R^T u = X^T y                               (7)
    posterior means = R^-1 u                                                             (8)

by the matrix determinant lemma and Woodbury's identity. X^T X is shared by all hyperparameters, and
its size does not grow with the episodes. While there are fewer of them than columns, C is the
smaller matrix, K * P in it is a product by entries, and the posterior means are sigma X^T C^-1 y.

Either posterior takes in further episodes by adding rows: to X, and R changes by a QR decomposition
of R above them; or to C, and R grows by a block.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from agents.additive_columns import Columns

Floats = NDArray[np.float64]

# Columns at a time in a QR update; 8 to 32 take the same time.
_PANEL = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractions:
    """Fractions of the variance of the values: a, c and b of (2)."""

    schedule: float
    state: float = 0.0
    reaction: float = 0.0

    @property
    def noise(self) -> float:
        """Fraction nu that nothing explains."""
        return 1 - self.schedule - self.state

    @property
    def average(self) -> float:
        """Prior variance a (1 - b) of effects in the average state."""
        return self.schedule * (1 - self.reaction)

    @property
    def slope(self) -> float:
        """Prior variance a b of what reacts to the state."""
        return self.schedule * self.reaction

    @property
    def reacts(self) -> bool:
        """Whether anything does."""
        return self.reaction > 0


class Widths(NamedTuple):
    """Numbers of columns of G, q, and of Phi, F."""

    effects: int
    features: int

    def variances(self, fractions: Fractions) -> Floats:
        """Return the (n,) prior variances sigma; Phi comes last, and is missing if c is 0."""
        of_effect = [fractions.average]
        if fractions.reacts:
            of_effect += [fractions.slope] * self.features
        of_state = [fractions.state] * self.features if fractions.state else []
        return np.array(of_effect * self.effects + [1.0] + of_state)

    def split(self, means: Floats, fractions: Fractions) -> "Coefficients":
        """Return the coefficients that are (n,) ``means``."""
        if not fractions.reacts:
            slopes = np.zeros((self.effects, self.features))
            return Coefficients(effects=means[: self.effects], slopes=slopes)
        both = means[: self.effects * (1 + self.features)].reshape(self.effects, -1)
        return Coefficients(effects=both[:, 0], slopes=both[:, 1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Posterior means of the coefficients of G, (q,), and of products of G and Phi, (q, F)."""

    effects: Floats
    slopes: Floats


class Posterior(Protocol):
    """The posterior of fixed hyperparameters."""

    def copy(self) -> "Posterior":
        """Return one to which episodes are added without changing this one."""
        ...

    def add(self, columns: Columns, values: Floats) -> None:
        """Take in further episodes, whose values have the same center."""
        ...

    def coefficients(self, *, center: float = 0.0) -> Coefficients:
        """Return the posterior means for the values minus ``center``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Log marginal likelihood (4) of hyperparameters, and their posterior."""

    likelihood: float
    fractions: Fractions
    posterior: Posterior


class Regression(Protocol):
    """The regression of values on columns, for any hyperparameters of one kind."""

    def fit(self, fractions: Fractions) -> Fit:
        """Return the likelihood of hyperparameters, and their posterior."""
        ...


def regress(columns: Columns, values: Floats, *, reacts: bool) -> Regression:
    """Return the regression of centered (E,) values, by the smaller of two matrices."""
    effects, features = columns.effects.shape[1], columns.features.shape[1]
    width = (1 + effects) * (1 + features) if reacts else 1 + effects + features
    if width < len(values):
        return PrimalRegression(columns, values, reacts=reacts)
    return DualRegression(columns, values, reacts=reacts)


def _variance(values: Floats) -> float:
    """Return v: the variance of the values, 1 if they are all the same."""
    return float(np.var(values)) or 1.0


def _cholesky(matrix: Floats) -> Floats:
    """Return R, upper triangular, in place of a positive definite matrix in Fortran's order.

    What is below the diagonal is whatever was there.
    """
    factor, info = lapack.dpotrf(matrix, lower=False, clean=False, overwrite_a=True)
    assert info == 0, info
    result: Floats = factor
    return result


def _log_determinant(factor: Floats) -> float:
    return 2 * float(np.log(np.diag(factor)).sum())


class PrimalRegression:
    """The regression by X^T X, (n, n)."""

    def __init__(self, columns: Columns, values: Floats, *, reacts: bool) -> None:
        self._widths = Widths(columns.effects.shape[1], columns.features.shape[1])
        self._values = values
        self._gram = columns.gram(reacts=reacts)
        self._moments = columns.moments(values, reacts=reacts)

    def fit(self, fractions: Fractions) -> Fit:
        """Return (4) by (6) and (7), and the posterior."""
        sigma = self._widths.variances(fractions)
        size = len(sigma)
        # Only Phi, which is last, can be missing.
        matrix = np.array(self._gram[:size, :size], order="F")
        matrix[np.diag_indices(size)] += fractions.noise / sigma
        factor = _cholesky(matrix)
        moments = self._moments[:size]
        explained = blas.dtrsv(factor, moments, trans=1)
        residual = float(self._values @ self._values) - float(explained @ explained)
        count, variance = len(self._values), _variance(self._values)
        log_determinant = (
            count * math.log(variance)
            + (count - size) * math.log(fractions.noise)
            + float(np.log(sigma).sum())
            + _log_determinant(factor)
        )
        # X^T 1 is what X^T X has in the column of the constant.
        effects, features = self._widths
        constant = effects * (1 + features) if fractions.reacts else effects
        sums = self._gram[:size, constant].copy()
        return Fit(
            likelihood=-0.5 * (residual / (variance * fractions.noise) + log_determinant),
            fractions=fractions,
            posterior=PrimalPosterior(self._widths, fractions, factor, moments, sums),
        )


class DualRegression:
    """The regression by C, (E, E)."""

    def __init__(self, columns: Columns, values: Floats, *, reacts: bool) -> None:
        del reacts  # the matrix is as large without
        self._rows = _DualRows(columns.effects, columns.features)
        self._values = values
        self._products = self._rows.products_with(self._rows)

    def fit(self, fractions: Fractions) -> Fit:
        """Return (4), and the posterior."""
        total = self._products.mix(fractions)
        total[np.diag_indices_from(total)] += fractions.noise
        # Symmetric: its transpose is the same, in Fortran's order.
        factor = _cholesky(total.T)
        half = blas.dtrsv(factor, self._values, trans=1)
        variance = _variance(self._values)
        log_determinant = len(half) * math.log(variance) + _log_determinant(factor)
        return Fit(
            likelihood=-0.5 * (float(half @ half) / variance + log_determinant),
            fractions=fractions,
            posterior=DualPosterior(self._rows, self._values, fractions, factor),
        )


class _DualProducts(NamedTuple):
    """Products of some episodes with others: K, P, K * P."""

    effects: Floats
    features: Floats
    both: Floats

    def mix(self, fractions: Fractions) -> Floats:
        """Return the covariances of the values over v, without their noise."""
        total = fractions.average * self.effects + 1
        if fractions.slope:
            total += fractions.slope * self.both
        if fractions.state:
            total += fractions.state * self.features
        return total


class _DualRows(NamedTuple):
    """G, (E, q), and Phi, (E, F)."""

    effects: Floats
    features: Floats

    def products_with(self, others: "_DualRows") -> _DualProducts:
        effects = self.effects @ others.effects.T
        features = self.features @ others.features.T
        return _DualProducts(effects, features, effects * features)


class PrimalPosterior:
    """The posterior (8): a further episode costs the same at any number.

    Args:
        widths: numbers of columns.
        fractions: hyperparameters.
        factor: R; what is below its diagonal is ignored.
        moments: X^T y.
        sums: X^T 1.
    """

    def __init__(
        self, widths: Widths, fractions: Fractions, factor: Floats, moments: Floats, sums: Floats
    ) -> None:
        self._widths = widths
        self._fractions = fractions
        self._factor = factor
        self._moments = moments
        self._sums = sums

    def copy(self) -> "PrimalPosterior":
        """Return one to which episodes are added without changing this one."""
        factor = self._factor.copy(order="F")
        return PrimalPosterior(self._widths, self._fractions, factor, self._moments, self._sums)

    def add(self, columns: Columns, values: Floats) -> None:
        """Take in further episodes, whose values have the same center."""
        size = len(self._factor)
        rows = columns.rows(reacts=self._fractions.reacts)[:, :size]
        self._moments = self._moments + values @ rows
        self._sums = self._sums + rows.sum(axis=0)
        # QR of R with the new rows below it: R'^T R' = R^T R + rows^T rows.
        self._factor, _, _, info = lapack.dtpqrt(
            0,
            min(_PANEL, size),
            self._factor,
            np.asfortranarray(rows),
            overwrite_a=True,
            overwrite_b=True,
        )
        assert info == 0, info

    def coefficients(self, *, center: float = 0.0) -> Coefficients:
        """Return the posterior means for the values minus ``center``."""
        half = blas.dtrsv(self._factor, self._moments - center * self._sums, trans=1)
        return self._widths.split(blas.dtrsv(self._factor, half), self._fractions)


class DualPosterior:
    """The posterior by C of E episodes.

    Args:
        rows: G and Phi.
        values: (E,).
        fractions: hyperparameters.
        factor: R with R^T R = C / v; what is below its diagonal is ignored.
    """

    def __init__(
        self, rows: _DualRows, values: Floats, fractions: Fractions, factor: Floats
    ) -> None:
        self._rows = rows
        self._values = values
        self._fractions = fractions
        self._factor = factor

    def copy(self) -> "DualPosterior":
        """Return one to which episodes are added without changing this one."""
        return DualPosterior(self._rows, self._values, self._fractions, self._factor)

    def add(self, columns: Columns, values: Floats) -> None:
        """Take in further episodes, whose values have the same center."""
        new = _DualRows(columns.effects, columns.features)
        between = self._rows.products_with(new).mix(self._fractions)
        corner = new.products_with(new).mix(self._fractions)
        corner[np.diag_indices_from(corner)] += self._fractions.noise
        # R' = [R, H; 0, R''] with R^T H = between, R''^T R'' = corner - H^T H.
        half = blas.dtrsm(1.0, self._factor, between, trans_a=1)
        count, total = len(self._values), len(self._values) + len(values)
        factor = np.zeros((total, total), order="F")
        factor[:count, :count] = self._factor
        factor[:count, count:] = half
        factor[count:, count:] = _cholesky((corner - half.T @ half).T)
        self._factor = factor
        self._values = np.concatenate([self._values, values])
        effects, features = zip(self._rows, new, strict=True)
        self._rows = _DualRows(np.concatenate(effects), np.concatenate(features))

    def coefficients(self, *, center: float = 0.0) -> Coefficients:
        """Return sigma X^T C^-1 y for the values minus ``center``."""
        half = blas.dtrsv(self._factor, self._values - center, trans=1)
        weights = blas.dtrsv(self._factor, half)
        effects, features = self._rows
        return Coefficients(
            effects=self._fractions.average * (weights @ effects),
            slopes=self._fractions.slope * (effects.T @ (weights[:, None] * features)),
        )
